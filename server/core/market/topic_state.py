"""Keeps one topic's state on this node, and builds what a client needs to catch up."""

from collections.abc import Callable
from typing import Protocol

from client_sdk.contract import FeedState, Stream
from server.core.log.backlog import Lag
from server.core.log.channel_state import CatchUp, ChannelState
from server.core.log.entries import Entry, Position
from server.core.log.history import History
from server.core.market.book import Levels, OrderBook
from server.core.market.book_replica import BookReplica
from server.core.market.messages import MessageEncoder
from server.core.market.source_time import copy_source_ts


class Replica(Protocol):
    """The whole state before the oldest entry of the history."""

    def apply(self, entry: Entry) -> None:
        """Apply an entry; no-op if it is applied already."""

    def encode(self, seq: int, history: History) -> bytes:
        """The whole state at `seq` as JSON; `history` must reach up to `seq`."""

    def merge(self, entries: list[Entry]) -> bytes | None:
        """Merge entries into one change; None if a snapshot is cheaper or one is among them."""


# Of the position and the newest entry of a channel.
NewReplica = Callable[[int, Entry | None], Replica]


class TopicState(ChannelState):
    """The state of one market topic."""

    can_resync = True

    __slots__ = (
        "_latest",
        "_new_replica",
        "_replica",
        "_trading_state",
        "encoder",
        "label",
        "merges",
    )

    def __init__(
        self,
        stream: Stream,
        encoder: MessageEncoder,
        head: Position,
        latest: Entry | None,
        *,
        max_messages: int,
        max_bytes: int,
        max_age_ms: int | None = None,
        new_replica: NewReplica | None = None,
    ) -> None:
        history = None
        if stream is not Stream.PRICE:
            # Only the last price counts; in other streams clients may need earlier entries.
            history = self._new_history(max_messages, max_bytes, max_age_ms)
        super().__init__(head, history)
        self.label = stream.value
        self.merges = stream.is_conflated or self.is_derived
        self.encoder = encoder
        self._latest = latest
        # HALTED or CLOSED; None while the symbol trades.
        self._trading_state: FeedState | None = None
        if stream is Stream.ORDERBOOK:
            new_replica = BookReplica
        # Rebuilds the whole state from changes; None if each entry is the whole state.
        self._new_replica = new_replica
        self._replica = None if new_replica is None else new_replica(head.seq, latest)

    @staticmethod
    def _new_history(max_messages: int, max_bytes: int, max_age_ms: int | None) -> History:
        return History(max_messages=max_messages, max_bytes=max_bytes, max_age_ms=max_age_ms)

    @property
    def latest(self) -> Entry | None:
        """The newest entry; None if there is none."""
        return self._latest

    @property
    def ts_ms(self) -> int | None:
        """The time of the newest entry; None if there is none."""
        return None if self._latest is None else self._latest.ts_ms

    @property
    def is_halted(self) -> bool:
        """Whether its feed may be silent, because nothing is traded."""
        return self._trading_state is not None

    @property
    def trading_state(self) -> FeedState | None:
        """HALTED or CLOSED; None while the symbol trades."""
        return self._trading_state

    def set_trading_state(self, state: FeedState | None) -> None:
        """Set the trading state of the symbol."""
        self._trading_state = state

    def book(self) -> OrderBook:
        """The order book now, to read only; only for a book's topic."""
        assert isinstance(self._replica, BookReplica)
        assert self._history is not None
        return self._replica.current(self._history)

    def follow_book(self, newest: Entry) -> tuple[OrderBook, Levels, Levels]:
        """The order book with its newest entry, and the levels of that."""
        assert isinstance(self._replica, BookReplica)
        assert self._history is not None
        return self._replica.follow(newest, self._history)

    def accept(self, entry: Entry) -> bool:
        """Accept the next entry; False if it is already known."""
        if not super().accept(entry):
            return False
        self._latest = entry
        return True

    def reset(self, head: Position, latest: Entry | None) -> None:
        """Drop the history and restart at `head`, with `latest` as the state."""
        super().reset(head, latest)
        self._latest = latest
        if self._new_replica is not None:
            self._replica = self._new_replica(head.seq, latest)

    def event(self, entry: Entry) -> bytes:
        """An entry as an event, for a client that has the entry before it."""
        return self.encoder.entry(entry)

    def body(self, entry: Entry) -> bytes:
        """An entry as JSON, for a reply."""
        position = entry.position
        return self.encoder.body(
            position, kind=entry.kind, prev=entry.prev, ts_ms=entry.ts_ms, data=entry.data
        )

    def status(self, since_ms: int | None) -> bytes:
        """The feed's state as an event."""
        return self.encoder.status(self.feed_state(since_ms), since_ms)

    def feed_state(self, since_ms: int | None) -> FeedState:
        """The feed's state; `since_ms` is since when it is silent, None if it is not."""
        if since_ms is not None:
            return FeedState.STALE
        return self._trading_state or FeedState.LIVE

    def resync(self) -> bytes:
        """The event that announces a reset."""
        return self.encoder.status(FeedState.RESYNC, None)

    def snapshot(self, prev: int | None = None, merged: int = 1, age_ms: int = 0) -> bytes | None:
        """The full state as a message body; None if nothing was ever published."""
        latest = self._latest
        if latest is None:
            return None
        seq = self.position.seq
        data = latest.data
        if self._replica is not None and self._history is not None:
            data = copy_source_ts(data, self._replica.encode(seq, self._history))
        return self.encoder.body(
            self.position,
            kind="snapshot",
            prev=seq - 1 if prev is None else prev,
            ts_ms=latest.ts_ms,
            data=data,
            merged=merged,
            age_ms=age_ms,
        )

    def catch_up(
        self, lag: Lag, now_ms: int, max_bytes: int, *, until_seq: int | None = None
    ) -> CatchUp:
        """What a client with this lag lacks: one merged message, or entries up to `max_bytes`."""
        if self.merges:
            return self._merge(lag, now_ms)
        entries = None if lag.needs_snapshot else self.since(lag.last_seq)
        if entries is None:
            # Entries are gone: the snapshot's `prev` shows the client the gap.
            return self._snapshot_event(lag.last_seq)
        return self._replay(entries, lag.last_seq, max_bytes, until_seq)

    def _merge(self, lag: Lag, now_ms: int) -> CatchUp:
        position, prev, latest = self.position, lag.last_seq, self._latest
        if prev == position.seq and not lag.needs_snapshot:
            return CatchUp([], position.seq)
        assert latest is not None
        # How many entries were lost in a reset is unknown.
        merged = 1 if lag.needs_resync else self._count_since(prev)
        age_ms = max(0, now_ms - (latest.ts_ms if lag.oldest_ms is None else lag.oldest_ms))
        data = latest.data
        if self._replica is not None and (merged > 1 or lag.needs_snapshot):
            change = None if lag.needs_snapshot else self._merged_change(prev)
            if change is None:
                return self._snapshot_event(prev, merged, age_ms)
            data = copy_source_ts(data, change)
        body = self.encoder.body(
            position,
            # The client may have this position but no state.
            kind="snapshot" if lag.needs_snapshot else latest.kind,
            prev=prev,
            ts_ms=latest.ts_ms,
            data=data,
            merged=merged,
            age_ms=age_ms,
        )
        return CatchUp([self.encoder.event(body)], position.seq, merged)

    def _snapshot_event(self, prev: int, merged: int = 1, age_ms: int = 0) -> CatchUp:
        body = self.snapshot(prev, merged, age_ms)
        assert body is not None
        return CatchUp([self.encoder.event(body)], self.position.seq, merged, is_snapshot=True)

    def _count_since(self, seq: int) -> int:
        """How many entries a merged message after this one stands for."""
        return self.position.seq - seq

    def _merged_change(self, last: int) -> bytes | None:
        assert self._replica is not None
        assert self._history is not None
        entries = self._history.since(last)
        return None if entries is None else self._replica.merge(entries)

    def _evict(self, entry: Entry) -> None:
        """Apply an entry to the book before it is dropped."""
        if self._replica is not None:
            self._replica.apply(entry)
