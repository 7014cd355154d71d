"""A namespace as the parts of a client see it: joined or not, on whatever connection there is."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from client_sdk.connection.packets import Packet
from client_sdk.connection.wire import Wire
from client_sdk.errors import FloorcastError, NotConnected

TakenT = TypeVar("TakenT")


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

    async def passed(self) -> None:
        """Wait until it is open; raises once it has failed."""
        while not self.is_open:
            if self.error is not None:
                raise self.error.again()
            await self._open.wait()


class Namespace:
    """Joined when it is first wanted, and again on every connection after that."""

    def __init__(self, name: str, on_want: Callable[[], None]) -> None:
        self.name = name
        self.gate = Gate()
        self.wire: Wire | None = None
        self.wanted = False
        # When to try again, after a refusal that may pass.
        self.retry_at = 0.0
        self._on_want = on_want
        self._lost = asyncio.Event()
        # For the part of the client that lives in it.
        self.on_event: Callable[[Wire, Packet], None] = lambda wire, packet: None
        self.on_join: Callable[[], None] = lambda: None
        self.on_loss: Callable[[], None] = lambda: None
        self.on_failure: Callable[[FloorcastError], None] = lambda error: None

    @property
    def lacks_wire(self) -> bool:
        """Whether it wants to be joined and is not."""
        return self.wanted and self.wire is None and self.gate.error is None

    def want(self) -> None:
        """Somebody needs it."""
        if not self.wanted:
            self.wanted = True
            self._on_want()

    async def joined(self) -> None:
        """Wait until it is joined; raises when it never will be."""
        self.want()
        await self.gate.passed()

    async def lost(self) -> None:
        """Wait until the connection of now is gone."""
        await self._lost.wait()

    async def ask(self, event: str, body: str, take: Callable[[str], TakenT]) -> TakenT:
        """Ask the server; raises `NotConnected` where there is no connection now."""
        if self.wire is None:
            raise NotConnected("there is no connection")
        return await self.wire.ask(self.name, event, body, take)

    # --- what the supervisor tells

    def join(self, wire: Wire) -> None:
        """It is joined on this connection."""
        self.wire = wire
        self._lost.clear()
        self.on_join()
        self.gate.open()

    def lose(self) -> None:
        """It is not joined any more."""
        if self.wire is not None:
            self.wire = None
            self._lost.set()
            self.gate.close()
            self.on_loss()

    def fail(self, error: FloorcastError) -> None:
        """It will not be joined again."""
        if self.gate.error is None:
            self.wire = None
            self._lost.set()
            self.gate.fail(error)
            self.on_failure(error)
