"""One polling client: what is written waits here until its next request fetches it."""

import asyncio

from server.core.wire.frames import split_text_frames
from server.transport.links import Listener

# The stock Python client gives up where an answer has more, and takes its leave.
_MAX_PACKETS = 16


class PollOverlap(Exception):
    """The client asked again while an earlier request of its was still waiting."""


class PollingCarrier:
    """Turns frames back into packets, so that nobody above needs to know who polls."""

    deflates = False

    __slots__ = (
        "_buffered",
        "_clog_bytes",
        "_clogged",
        "_ended",
        "_listener",
        "_packets",
        "_taken",
        "_waiter",
    )

    def __init__(self, listener: Listener, *, clog_bytes: int) -> None:
        self._listener = listener
        self._clog_bytes = clog_bytes
        self._clogged = False
        self._packets: list[bytes] = []
        self._buffered = 0
        self._taken = 0
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    @property
    def buffered_bytes(self) -> int:
        return self._buffered

    @property
    def taken_bytes(self) -> int:
        return self._taken

    @property
    def polled(self) -> bool:
        """Whether a request of the client waits here for something to fetch."""
        return self._waiter is not None

    def write(self, frames: bytes) -> None:
        if self._ended:
            return
        packets = split_text_frames(frames)
        self._packets += packets
        self._buffered += sum(map(len, packets))
        self.release()
        if self._buffered > self._clog_bytes and not self._clogged:
            self._clogged = True
            self._listener.on_clogged()

    def release(self) -> None:
        """Let the waiting request go, with what there is."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self, max_packets: int | None = None) -> list[bytes]:
        """What waits, for the client or for the carrier that takes over."""
        packets = self._packets[:max_packets]
        del self._packets[:max_packets]
        size = sum(map(len, packets))
        self._taken += size
        self._buffered -= size
        if self._clogged and self._buffered <= self._clog_bytes // 4:
            self._clogged = False
            self._listener.on_writable()
        return packets

    async def poll(self) -> list[bytes]:
        """Wait until there is something to fetch, or until the connection ends."""
        if self._waiter is not None:
            raise PollOverlap
        if not self._packets and not self._ended:
            # The wait is bounded: a ping is written every interval, and who does not answer
            # it is ended.
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        # After the end there is no next poll: the goodbye is the last packet.
        return self.take(None if self._ended else _MAX_PACKETS)

    def pause_reading(self) -> None:
        """Nothing: a client's next post is only answered when this one was dealt with."""

    def resume_reading(self) -> None:
        """Nothing, as above."""

    def close(self, close_code: int) -> None:
        # What was written before can still be fetched by the request that waits now; one
        # that comes later hears that the session is unknown, and the client reconnects.
        if not self._ended:
            self._ended = True
            self.release()
            self._listener.on_lost()

    def abort(self) -> None:
        self.close(1000)
