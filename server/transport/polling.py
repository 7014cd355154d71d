"""The carrier of a polling client: buffers packets until its next GET request."""

import asyncio
from collections.abc import Callable

from server.core.wire.frames import split_text_frames
from server.transport.links import CarrierEvents

# The stock Python client disconnects if one response has more packets.
_MAX_PACKETS = 16


class OverlappingPoll(Exception):
    """The client polled while its previous poll was still waiting."""


class PollingCarrier:
    """Converts frames back into packets, so that all layers above write frames only."""

    deflates = False

    __slots__ = (
        "_buffered",
        "_clog_bytes",
        "_clogged",
        "_closed",
        "_events",
        "_packets",
        "_taken",
        "_waiter",
    )

    def __init__(self, events: CarrierEvents, *, clog_bytes: int) -> None:
        self._events = events
        self._clog_bytes = clog_bytes
        self._clogged = False
        self._packets: list[bytes] = []
        self._buffered = 0
        self._taken = 0
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def buffered_bytes(self) -> int:
        return self._buffered

    @property
    def taken_bytes(self) -> int:
        return self._taken

    @property
    def has_waiting_poll(self) -> bool:
        """Whether a poll is waiting for packets."""
        return self._waiter is not None

    @property
    def plain_write(self) -> Callable[[bytes], None]:
        return self.write

    def write(self, frames: bytes) -> None:
        if self._closed:
            return
        packets = split_text_frames(frames)
        self._packets += packets
        self._buffered += sum(map(len, packets))
        self.complete_poll()
        if self._buffered > self._clog_bytes and not self._clogged:
            self._clogged = True
            self._events.on_clogged()

    def complete_poll(self) -> None:
        """Complete the waiting poll with the buffered packets; a no-op if none waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take_packets(self, max_packets: int | None = None) -> list[bytes]:
        """Remove and return buffered packets, for a poll or for the carrier of an upgrade."""
        packets = self._packets[:max_packets]
        del self._packets[:max_packets]
        size = sum(map(len, packets))
        self._taken += size
        self._buffered -= size
        if self._clogged and self._buffered <= self._clog_bytes // 4:
            self._clogged = False
            self._events.on_writable()
        return packets

    async def poll(self) -> list[bytes]:
        """Wait for packets or for the close; raises `OverlappingPoll` if a poll already waits."""
        if self._waiter is not None:
            raise OverlappingPoll
        if not self._packets and not self._closed:
            # The ping interval bounds this wait: a ping completes the poll, and an unanswered
            # ping closes the connection.
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        # No poll follows the close: the last response carries everything.
        return self.take_packets(None if self._closed else _MAX_PACKETS)

    def pause_reading(self) -> None:
        """No-op: a POST is answered only after its packets are handled."""

    def resume_reading(self) -> None:
        """No-op, as above."""

    def limit_messages(self, max_bytes: int) -> None:
        """No-op: a POST is limited by its connection."""

    def close(self, close_code: int) -> None:
        # The waiting poll still fetches the buffered packets. A later one gets Engine.IO's
        # "Session ID unknown", and the client reconnects.
        if not self._closed:
            self._closed = True
            self.complete_poll()
            self._events.on_lost()

    def abort(self) -> None:
        self.close(1000)
