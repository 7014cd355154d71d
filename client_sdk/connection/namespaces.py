"""A Socket.IO namespace across reconnects, and the worker tasks that send requests in it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from client_sdk.connection.packets import Packet
from client_sdk.connection.states import Gate
from client_sdk.connection.websocket import Connection
from client_sdk.errors import FloorcastError, NotConnected, is_retryable

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

# Used if the server does not say when to retry.
_RETRY_SECONDS = 1.0


class Namespace:
    """Joined on first request, and again on every later connection."""

    def __init__(self, name: str, on_request: Callable[[], None]) -> None:
        self.name = name
        self.gate = Gate()
        self.connection: Connection | None = None
        self.is_requested = False
        self.is_started = False
        # When to retry after a retryable refusal.
        self.retry_at = 0.0
        self._on_request = on_request
        self._lost = asyncio.Event()
        # Callbacks of the part of the client that uses this namespace.
        self.on_event: Callable[[Connection, Packet], None] = lambda connection, packet: None
        self.on_join: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.on_failure: Callable[[FloorcastError], None] = lambda error: None

    @property
    def needs_join(self) -> bool:
        """True if it is requested, not joined, and has not failed."""
        return self.is_requested and self.connection is None and self.gate.error is None

    def require_usable(self) -> None:
        """Raise `NotConnected` if the client is not started, or the error that it failed with."""
        if self.gate.error is not None:
            raise self.gate.error.clone()
        if not self.is_started:
            raise NotConnected("the client is not started: use `async with` or call start() first")

    def request_join(self) -> None:
        """Have it joined on this connection and on all later ones."""
        if not self.is_requested:
            self.is_requested = True
            self._on_request()

    async def wait_joined(self) -> None:
        """Request it and wait until it is joined; raises if it has failed for good."""
        self.request_join()
        await self.gate.wait_open()

    async def wait_lost(self) -> None:
        """Wait until the current connection has ended."""
        await self._lost.wait()

    async def request(self, event: str, body: str, parse: Callable[[str], ResultT]) -> ResultT:
        """Send a request and parse the reply; raises `NotConnected` without a connection."""
        if self.connection is None:
            raise NotConnected("not connected to the server")
        return await self.connection.request(self.name, event, body, parse)

    # --- called by the supervisor

    def set_joined(self, connection: Connection) -> None:
        """Record that it is joined on this connection."""
        self.connection = connection
        self._lost.clear()
        self.on_join()
        self.gate.open()

    def set_lost(self) -> None:
        """Record that its connection has ended."""
        if self.connection is not None:
            self.connection = None
            self._lost.set()
            self.gate.close()
            self.on_lost()

    def fail(self, error: FloorcastError) -> None:
        """Give it up for good."""
        if self.gate.error is None:
            self.connection = None
            self._lost.set()
            self.gate.fail(error)
            self.on_failure(error)


class Worker:
    """One task that runs `work` after each `wake` while the namespace is joined.

    If `work` raises a `FloorcastError`, it runs again after a pause or on the next connection.
    """

    def __init__(
        self, name: str, namespace: Namespace, work: Callable[[], Awaitable[None]]
    ) -> None:
        self._name = name
        self._namespace = namespace
        self._work = work
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def wake(self) -> None:
        """Run the work soon; the first call starts the task."""
        self._woken.set()
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run(), name=f"floorcast-{self._name}")

    async def close(self) -> None:
        """Cancel the task."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self._namespace.wait_joined()
            except FloorcastError:
                # Failed for good; the namespace has reported the error.
                return
            try:
                await self._work()
            except FloorcastError as error:
                self._woken.set()
                if not isinstance(error, NotConnected):
                    await self._wait_before_retry(error)

    async def _wait_before_retry(self, error: FloorcastError) -> None:
        seconds = _RETRY_SECONDS if is_retryable(error) else 10 * _RETRY_SECONDS
        if error.retry_after_ms is not None:
            seconds = error.retry_after_ms / 1000
        logger.info(
            "a request of the %s failed, next attempt in %.1f s: %s",
            self._name,
            seconds,
            error,
            extra={"code": error.code},
        )
        # The next connection may accept at once what this one refused.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._namespace.wait_lost()
