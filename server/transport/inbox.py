"""Handles the packets of one connection in order, without a task if no handler suspends."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from server.core.wire.packets import Packet
from server.transport import eager

# Waiting packets; beyond this, reading from the client is paused.
_MAX_WAITING = 64


class Inbox:
    """Handles one packet at a time; `set_reading` pauses and resumes reading from the client."""

    __slots__ = ("_cleared", "_handle", "_set_reading", "_task", "_waiting")

    def __init__(
        self, handle: Callable[[Packet], Awaitable[None]], set_reading: Callable[[bool], None]
    ) -> None:
        self._handle = handle
        self._set_reading = set_reading
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[Packet] | None = None
        self._cleared = False

    @property
    def busy(self) -> bool:
        """Whether a packet is being handled; later packets wait."""
        return self._task is not None

    @property
    def waiting_count(self) -> int:
        """The number of waiting packets."""
        return 0 if self._waiting is None else len(self._waiting)

    def put(self, packet: Packet) -> None:
        """Handle a packet now, or after those before it."""
        if self._task is not None:
            if self._waiting is None:
                self._waiting = deque()
            self._waiting.append(packet)
            if len(self._waiting) == _MAX_WAITING:
                self._set_reading(False)
            return
        rest = eager.start(self._work(packet))
        if rest is not None:
            self._task = asyncio.get_running_loop().create_task(rest, name="floorcast-packet")
            if self._cleared:
                # The handler closed its own connection before it suspended.
                self._task.cancel()

    def clear(self) -> None:
        """Drop the waiting packets and cancel the running handler: the connection has ended."""
        self._cleared = True
        self._waiting = None
        if self._task is not None:
            self._task.cancel()

    async def wait_idle(self) -> None:
        """Wait until every received packet is handled."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _work(self, packet: Packet) -> None:
        try:
            await self._handle(packet)
            while self._waiting:
                await self._handle(self._waiting.popleft())
        finally:
            self._task = None
            if self._waiting is not None:
                self._waiting = None
                self._set_reading(True)
