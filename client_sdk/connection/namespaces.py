"""A namespace as the parts of a client see it: joined or not, on whatever connection there is."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from client_sdk.connection.packets import Packet
from client_sdk.connection.wire import Connection
from client_sdk.errors import FloorcastError, NotConnected

ResultT = TypeVar("ResultT")


class Gate:
    """Lets through who waits while it is open; once failed, tells everybody why."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self.error: FloorcastError | None = None

    @property
    def is_open(self) -> bool:
        """Whether one may pass now."""
        return self.error is None and self._open.is_set()

    def open(self) -> None:
        """Let through."""
        if self.error is None:
            self._open.set()

    def close(self) -> None:
        """Let wait."""
        if self.error is None:
            self._open.clear()

    def fail(self, error: FloorcastError) -> None:
        """Nobody will ever get through."""
        if self.error is None:
            self.error = error
            self._open.set()

    async def wait_open(self) -> None:
        """Wait until it is open; raises once it has failed."""
        while not self.is_open:
            if self.error is not None:
                raise self.error.clone()
            await self._open.wait()


class Namespace:
    """Joined when it is first wanted, and again on every connection after that."""

    def __init__(self, name: str, on_request: Callable[[], None]) -> None:
        self.name = name
        self.gate = Gate()
        self.connection: Connection | None = None
        self.is_requested = False
        # When to try again, after a refusal that may pass.
        self.retry_at = 0.0
        self._on_request = on_request
        self._lost = asyncio.Event()
        # For the part of the client that lives in it.
        self.on_event: Callable[[Connection, Packet], None] = lambda wire, packet: None
        self.on_join: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.on_failure: Callable[[FloorcastError], None] = lambda error: None

    @property
    def needs_join(self) -> bool:
        """Whether it wants to be joined and is not."""
        return self.is_requested and self.connection is None and self.gate.error is None

    def request_join(self) -> None:
        """Somebody needs it."""
        if not self.is_requested:
            self.is_requested = True
            self._on_request()

    async def wait_joined(self) -> None:
        """Wait until it is joined; raises when it never will be."""
        self.request_join()
        await self.gate.wait_open()

    async def wait_lost(self) -> None:
        """Wait until the connection of now is gone."""
        await self._lost.wait()

    async def request(self, event: str, body: str, parse: Callable[[str], ResultT]) -> ResultT:
        """Ask the server; raises `NotConnected` where there is no connection now."""
        if self.connection is None:
            raise NotConnected("there is no connection")
        return await self.connection.request(self.name, event, body, parse)

    # --- what the supervisor tells

    def set_joined(self, connection: Connection) -> None:
        """It is joined on this connection."""
        self.connection = connection
        self._lost.clear()
        self.on_join()
        self.gate.open()

    def set_lost(self) -> None:
        """It is not joined any more."""
        if self.connection is not None:
            self.connection = None
            self._lost.set()
            self.gate.close()
            self.on_lost()

    def fail(self, error: FloorcastError) -> None:
        """It will not be joined again."""
        if self.gate.error is None:
            self.connection = None
            self._lost.set()
            self.gate.fail(error)
            self.on_failure(error)
