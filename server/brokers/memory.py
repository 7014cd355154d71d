"""A broker inside the process: positions and the latest state, gone when the process is."""

import logging
from collections.abc import Callable
from dataclasses import replace

from client_sdk.contract import ErrorCode
from server.core.entries import Entry, Position
from server.core.errors import FloorcastError, LimitError
from server.core.idempotency import Claim, IdempotencyWindow
from server.ports import Clock

logger = logging.getLogger(__name__)

_MAX_CLAIMS = 100_000


class MemoryBroker:
    """Fills the `Broker` port for one process; it delivers while publishing, in order.

    The past is the latest entry of each channel; a history takes its place later.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        epoch: str,
        max_channels: int = 100_000,
        idempotency_seconds: float = 120.0,
    ) -> None:
        self._clock = clock
        self._epoch = epoch
        self._max_channels = max_channels
        self._latest: dict[str, Entry] = {}
        self._wholes: dict[str, Callable[[], bytes]] = {}
        self._claims = IdempotencyWindow(max_claims=_MAX_CLAIMS, seconds=idempotency_seconds)
        self._watched: set[str] = set()
        self._deliver: Callable[[Entry], None] | None = None
        self._failures: set[type[Exception]] = set()

    async def start(self, deliver: Callable[[Entry], None]) -> None:
        self._deliver = deliver

    async def stop(self) -> None:
        self._deliver = None
        self._watched.clear()

    async def find(self, claim: Claim) -> Position | None:
        return self._claims.find(claim, self._clock.monotonic())

    async def publish(
        self,
        channel: str,
        data: bytes,
        ts_ms: int,
        *,
        kind: str = "update",
        claim: Claim | None = None,
        whole: Callable[[], bytes] | None = None,
    ) -> Position:
        deliver = self._deliver
        if deliver is None:
            raise FloorcastError(ErrorCode.SERVER_DRAINING, "the broker has stopped")
        if claim is not None:
            now = self._clock.monotonic()
            published = self._claims.find(claim, now)
            if published is not None:
                return published
        previous = self._latest.get(channel)
        if previous is None and len(self._latest) >= self._max_channels:
            raise LimitError(ErrorCode.SERVER_OVERLOADED, "there are too many topics")
        seq = 1 if previous is None else previous.position.seq + 1
        entry = Entry(channel, Position(self._epoch, seq), ts_ms, data, kind)
        self._latest[channel] = entry
        if whole is not None:
            self._wholes[channel] = whole
        if claim is not None:
            self._claims.keep(claim, entry.position, now)
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
        latest = self._latest.get(channel)
        whole = self._wholes.get(channel)
        if latest is None or whole is None:
            return latest
        return replace(latest, data=whole(), kind="snapshot")

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
