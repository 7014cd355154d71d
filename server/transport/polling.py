"""One polling client: what is written waits here until its next request fetches it."""

import asyncio

from server.core.wire.frames import split_text_frames
from server.transport.links import CarrierEvents

# The stock Python client gives up where an answer has more, and takes its leave.
_MAX_PACKETS = 16


class OverlappingPoll(Exception):
    """The client asked again while an earlier request of its was still waiting."""


class PollingCarrier:
    """Turns frames back into packets, so that nobody above needs to know who polls."""

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
        """Whether a request of the client waits here for something to fetch."""
        return self._waiter is not None

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
        """Let the waiting request go, with what there is."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take_packets(self, max_packets: int | None = None) -> list[bytes]:
        """What waits, for the client or for the carrier that takes over."""
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
        """Wait until there is something to fetch, or until the connection ends."""
        if self._waiter is not None:
            raise OverlappingPoll
        if not self._packets and not self._closed:
            # The wait is bounded: a ping is written every interval, and who does not answer
            # it is ended.
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        # After the end there is no next poll: the goodbye is the last packet.
        return self.take_packets(None if self._closed else _MAX_PACKETS)

    def pause_reading(self) -> None:
        """Nothing: a client's next post is only answered when this one was dealt with."""

    def resume_reading(self) -> None:
        """Nothing, as above."""

    def close(self, close_code: int) -> None:
        # What was written before can still be fetched by the request that waits now; one
        # that comes later hears that the session is unknown, and the client reconnects.
        if not self._closed:
            self._closed = True
            self.complete_poll()
            self._events.on_lost()

    def abort(self) -> None:
        self.close(1000)
