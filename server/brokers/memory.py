"""A broker inside the process: positions and the latest entry, gone when the process is."""

import logging
from collections.abc import Callable

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError, LimitError
from server.ports import Entry, Position

logger = logging.getLogger(__name__)


class MemoryBroker:
    """Fills the `Broker` port for one process; it delivers while publishing, in order.

    The past is the latest entry of each channel; a history takes its place later.
    """

    def __init__(self, *, epoch: str, max_channels: int = 100_000) -> None:
        self._epoch = epoch
        self._max_channels = max_channels
        self._latest: dict[str, Entry] = {}
        self._watched: set[str] = set()
        self._deliver: Callable[[Entry], None] | None = None
        self._failures: set[type[Exception]] = set()

    async def start(self, deliver: Callable[[Entry], None]) -> None:
        self._deliver = deliver

    async def stop(self) -> None:
        self._deliver = None
        self._watched.clear()

    async def publish(self, channel: str, data: bytes, ts_ms: int) -> Position:
        deliver = self._deliver
        if deliver is None:
            raise FloorcastError(ErrorCode.SERVER_DRAINING, "the broker has stopped")
        previous = self._latest.get(channel)
        if previous is None and len(self._latest) >= self._max_channels:
            raise LimitError(ErrorCode.SERVER_OVERLOADED, "there are too many topics")
        seq = 1 if previous is None else previous.position.seq + 1
        entry = Entry(channel, Position(self._epoch, seq), ts_ms, data)
        self._latest[channel] = entry
        if channel in self._watched:
            try:
                deliver(entry)
            except Exception as failure:
                # The entry has its place: a refusal now would make the publisher send it twice.
                self._report(failure)
        return entry.position

    async def head(self, channel: str) -> Position:
        latest = self._latest.get(channel)
        return Position(self._epoch, 0) if latest is None else latest.position

    async def latest(self, channel: str) -> Entry | None:
        return self._latest.get(channel)

    async def watch(self, channel: str) -> None:
        self._watched.add(channel)

    async def unwatch(self, channel: str) -> None:
        self._watched.discard(channel)

    def _report(self, failure: Exception) -> None:
        kind = type(failure)
        if kind in self._failures:
            # It would come with every message, thousands a second.
            return
        self._failures.add(kind)
        # Neither its words nor its traceback's: either may quote the message.
        logger.error("delivery has failed", extra={"error": kind.__name__})
