"""Works off the packets of one connection in their order, at once where nothing has to wait."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from server.core.wire.packets import Packet
from server.transport import eager

# Packets that wait while a handler waits; past this the client's bytes wait in the network.
_MAX_WAITING = 64


class Inbox:
    """One packet at a time; `flow` is told to pause and resume the client."""

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
        """Whether a packet is being dealt with, and the next ones wait."""
        return self._task is not None

    @property
    def waiting_count(self) -> int:
        """How many packets wait."""
        return 0 if self._waiting is None else len(self._waiting)

    def put(self, packet: Packet) -> None:
        """Deal with it now, or when those before it are done."""
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
                # What it has done so far has ended the connection.
                self._task.cancel()

    def clear(self) -> None:
        """The connection has ended: what waits is forgotten, what runs is cancelled."""
        self._cleared = True
        self._waiting = None
        if self._task is not None:
            self._task.cancel()

    async def wait_idle(self) -> None:
        """Wait until every packet that came so far was dealt with."""
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
