"""The broker of a single process: positions, state and history in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field

from client_sdk.contract import ErrorCode
from server.brokers.failure_log import FailureLog
from server.core.errors import FloorcastError, LimitError, WriteConflict
from server.core.limits.shares import (
    SERVER,
    UNLIMITED,
    Owner,
    Quota,
    ShareLimits,
    Shares,
    is_about,
)
from server.core.log.entries import Entry, Position, Receipt, Reset
from server.core.log.history import History, HistoryBounds
from server.core.log.idempotency import Claim, IdempotencyWindow
from server.core.sessions.histories import HistoryRules
from server.core.sessions.records import is_session_channel
from server.ports import Clock, ignore


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """Bounds of what is stored, and for how long."""

    max_channels: int = 200_000
    max_claims: int = 200_000
    max_claims_per_org: int = UNLIMITED
    max_claims_per_publisher: int = UNLIMITED
    idempotency_seconds: float = 120.0
    histories: HistoryRules = field(default_factory=HistoryRules)
    org_bytes: int = UNLIMITED


class _Log:
    """What is kept of one channel."""

    __slots__ = ("counted_bytes", "full_state", "history", "latest", "owner")

    def __init__(self, latest: Entry) -> None:
        self.latest = latest
        self.full_state: Callable[[], bytes] | None = None
        # The owner of the newest entry in it, which holds the history, and its size there.
        self.history: History | None = None
        self.owner = SERVER
        self.counted_bytes = 0


class MemoryBroker:
    """Implements `Broker` for one process; `publish` delivers before it returns."""

    def __init__(self, clock: Clock, *, epoch: str, config: MemoryConfig | None = None) -> None:
        self._clock = clock
        self._epoch = epoch
        self._config = config = config or MemoryConfig()
        self._logs: dict[str, _Log] = {}
        self._topic_shares = _history_shares(config.histories.topics, config.org_bytes)
        self._session_shares = _history_shares(config.histories.sessions, config.org_bytes)
        self._claims = IdempotencyWindow(
            max_claims=config.max_claims,
            window_seconds=config.idempotency_seconds,
            max_per_org=config.max_claims_per_org,
            max_per_publisher=config.max_claims_per_publisher,
        )
        # Pins the epoch of each watched channel, also of one without entries.
        self._watched: dict[str, str] = {}
        # The same for channels of an earlier run, in which nobody has published since.
        self._pinned: dict[str, str] = {}
        self._forget_count = 0
        self._deliver: Callable[[Entry], None] | None = None
        self._failure_log = FailureLog()

    async def start(
        self,
        deliver: Callable[[Entry], None],
        *,
        on_reset: Callable[[Reset], None] = ignore,
        on_state: Callable[[bool], None] = ignore,
    ) -> None:
        # In one process nothing is lost in transit, so `on_reset` is never called.
        self._deliver = deliver
        on_state(True)

    async def stop(self) -> None:
        self._deliver = None
        self._watched.clear()

    async def find(self, channel: str, claim: Claim) -> Receipt | None:
        return self._claims.find(claim, self._clock.monotonic())

    async def publish(
        self,
        channel: str,
        data: bytes,
        ts_ms: int,
        *,
        kind: str = "update",
        claim: Claim | None = None,
        full_state: Callable[[], bytes] | None = None,
        in_history: bool = False,
        expected_head: Position | None = None,
        owner: Owner = SERVER,
    ) -> Receipt:
        if self._deliver is None:
            raise FloorcastError(ErrorCode.SERVER_DRAINING, "the broker has stopped")
        if claim is not None:
            published = self._claims.find(claim, self._clock.monotonic())
            if published is not None:
                return published
        log = self._logs.get(channel)
        head = self.head_of(channel) if log is None else log.latest.position
        if expected_head is not None and expected_head != head:
            raise WriteConflict
        if log is None:
            self.check_room()
        entry = Entry(channel, Position(head.epoch, head.seq + 1), ts_ms, data, kind)
        return self.apply(
            entry, claim=claim, full_state=full_state, in_history=in_history, owner=owner
        )

    def apply(
        self,
        entry: Entry,
        *,
        claim: Claim | None = None,
        full_state: Callable[[], bytes] | None = None,
        in_history: bool = False,
        owner: Owner = SERVER,
    ) -> Receipt:
        """Store an entry as the newest of its channel, and deliver it if that is watched.

        Its position must follow on the channel's head; nothing is checked here.
        """
        channel = entry.channel
        log = self._logs.get(channel)
        if log is None:
            log = self._logs[channel] = _Log(entry)
        else:
            log.latest = entry
        if full_state is not None:
            log.full_state = full_state
        if in_history:
            self._append_history(log, entry, owner)
        receipt = Receipt(entry.position, entry.ts_ms)
        if claim is not None:
            self._claims.store(claim, receipt, self._clock.monotonic())
        deliver = self._deliver
        if channel in self._watched and deliver is not None:
            try:
                deliver(entry)
            except Exception as failure:
                # The entry is published: an error now would make the publisher send it twice.
                self._failure_log.report(failure)
        return receipt

    async def head(self, channel: str) -> Position:
        return self.head_of(channel)

    async def latest(self, channel: str) -> Entry | None:
        return self.latest_of(channel)

    def latest_of(self, channel: str) -> Entry | None:
        """What `latest` returns."""
        log = self._logs.get(channel)
        if log is None:
            return None
        if log.full_state is None:
            return log.latest
        return log.latest._replace(data=log.full_state(), kind="snapshot")

    async def is_rolled_back(self, channel: str) -> bool:
        return False

    async def since(self, channel: str, position: Position) -> list[Entry] | None:
        head = self.head_of(channel)
        if position.epoch != head.epoch or position.seq > head.seq:
            return None
        if position.seq == head.seq:
            return []
        history = self._unexpired_history(channel)
        # Without history the missing entries are unknown.
        entries = None if history is None else history.since(position.seq)
        if entries is None or not self._config.histories.of(channel).can_replay(entries):
            return None
        return entries

    async def before(self, channel: str, seq: int | None, limit: int) -> list[Entry]:
        history = self._unexpired_history(channel)
        return [] if history is None else history.before(seq, limit)

    async def forget(self, channel: str, *, silent_since_ms: int | None = None) -> bool:
        log = self._logs.get(channel)
        is_silent = log is None or silent_since_ms is None or log.latest.ts_ms <= silent_since_ms
        if channel in self._watched or not is_silent:
            return False
        self._pinned.pop(channel, None)
        self.drop_history(channel)
        self._logs.pop(channel, None)
        # A new epoch: old positions must not match a new channel of this name.
        self._forget_count += 1
        return True

    async def add_topic(self, channel: str, owner: Owner) -> None:
        pass

    async def watch(self, channel: str) -> None:
        self._watched.setdefault(channel, self.head_of(channel).epoch)

    async def unwatch(self, channel: str) -> None:
        self._watched.pop(channel, None)

    def restore_claim(self, claim: Claim, receipt: Receipt, age_seconds: float) -> None:
        """Remember a message that was accepted some time ago; the oldest must come first."""
        self._claims.store(claim, receipt, self._clock.monotonic() - age_seconds)

    def empty_channels(self) -> dict[str, str]:
        """The watched channels without entries, with their epochs."""
        return {
            channel: epoch for channel, epoch in self._watched.items() if channel not in self._logs
        }

    def pin(self, channel: str, epoch: str) -> None:
        """Let a channel without entries begin in this epoch."""
        self._pinned[channel] = epoch

    def check_room(self) -> None:
        """Raise `LimitError` if there is no room for another channel."""
        if len(self._logs) >= self._config.max_channels:
            raise LimitError(ErrorCode.SERVER_OVERLOADED, "too many topics and sessions")

    def has_full_state(self, channel: str) -> bool:
        """Whether the entries of a channel are changes of its state."""
        log = self._logs.get(channel)
        return log is not None and log.full_state is not None

    def history_start(self, channel: str) -> int | None:
        """The seq of the oldest entry that is kept; None without a history."""
        history = self._unexpired_history(channel)
        return None if history is None or history.oldest is None else history.oldest.position.seq

    def head_of(self, channel: str) -> Position:
        """What `head` returns."""
        log = self._logs.get(channel)
        if log is not None:
            return log.latest.position
        epoch = self._watched.get(channel) or self._pinned.get(channel)
        if epoch is None:
            epoch = f"{self._epoch}.{self._forget_count}" if self._forget_count else self._epoch
        return Position(epoch, 0)

    def _append_history(self, log: _Log, entry: Entry, owner: Owner) -> None:
        history, channel = log.history, entry.channel
        if history is None:
            bounds = self._config.histories.of(channel)
            history = log.history = History(
                max_messages=bounds.messages,
                max_bytes=bounds.bytes,
                max_age_ms=int(bounds.seconds * 1000),
            )
            log.owner, log.counted_bytes = owner, 0
        history.append(entry)
        if log.owner != owner:
            self._shares_of(channel).remove(log.owner, channel)
            log.owner, log.counted_bytes = owner, 0
        if is_about(history.size_bytes, log.counted_bytes):
            self._shares_of(channel).touch(owner, channel)
        else:
            self._count_history(log, channel, owner, history.size_bytes)

    def _count_history(self, log: _Log, channel: str, owner: Owner, size_bytes: int) -> None:
        """Count a history that has changed its size, and make room for it."""
        shares = self._shares_of(channel)
        log.counted_bytes = size_bytes
        if not shares.put(owner, channel, size_bytes):
            return
        while (surplus := shares.surplus(owner)) is not None:
            oldest = next(iter(surplus.names))
            if oldest == channel:
                return
            # `since` returns None for a dropped history.
            self.drop_history(oldest)

    def drop_history(self, channel: str) -> None:
        """Drop the history of a channel, but not its newest entry; a no-op without one."""
        log = self._logs.get(channel)
        if log is not None and log.history is not None:
            log.history = None
            self._shares_of(channel).remove(log.owner, channel)

    def _shares_of(self, channel: str) -> Shares[str]:
        return self._session_shares if is_session_channel(channel) else self._topic_shares

    def _unexpired_history(self, channel: str) -> History | None:
        log = self._logs.get(channel)
        if log is None or log.history is None:
            return None
        log.history.expire(int(self._clock.time() * 1000))
        return log.history


def _history_shares(bounds: HistoryBounds, org_bytes: int) -> Shares[str]:
    return Shares(
        ShareLimits(Quota(size_bytes=bounds.total_bytes), Quota(size_bytes=org_bytes), Quota())
    )
