"""Keeps one topic's state on this node, and builds what a client needs to catch up."""

from dataclasses import dataclass
from typing import Protocol

import orjson

from client_sdk.contract import FeedState, Stream
from server.core.log.backlog import Lag
from server.core.log.entries import Entry, Position
from server.core.log.history import History
from server.core.market.book import BookChange
from server.core.market.book_replica import BookReplica, merged_change
from server.core.market.messages import MessageEncoder


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Events that bring a client to the seq `reached`, and how they were made."""

    events: list[bytes]
    reached: int
    merged: int = 0
    is_snapshot: bool = False
    # Entries are gone and no event can say so: the client must reconnect.
    is_lost: bool = False


class ChannelState(Protocol):
    """The state of one channel: what the hub needs to serve and catch up its clients.

    `position` and `since` must agree: if they do not, clients see gaps. For example, after
    `accept` of seq 8, `position.seq` is 8 and `since(7)` is that entry or None, never [].
    """

    @property
    def position(self) -> Position:
        """The position of the newest entry."""

    @property
    def merges(self) -> bool:
        """Whether a newer entry replaces older ones, so that a client may skip some."""

    @property
    def can_resync(self) -> bool:
        """Whether an event tells clients of a reset; if not, they are disconnected."""

    def accept(self, entry: Entry) -> bool:
        """Accept the next entry; False if it is already known."""

    def reset(self, head: Position, latest: Entry | None) -> None:
        """Drop the history and restart at `head`, with `latest` as the state."""

    def event(self, entry: Entry) -> bytes:
        """An entry as an event, for a client that has the entry before it."""

    def since(self, seq: int) -> list[Entry] | None:
        """The entries after `seq`; None if some are gone."""

    def prepend_history(self, entries: list[Entry]) -> None:
        """Add older entries from the broker to the history; no-op if `merges`."""

    def catch_up(
        self, lag: Lag, now_ms: int, max_bytes: int, *, until_seq: int | None = None
    ) -> CatchUp:
        """What a client with this lag lacks, or the first part up to `max_bytes`.

        Unless `merges`, it must not go beyond `until_seq`: a push follows that entry.
        """

    def status(self, since_ms: int | None) -> bytes | None:
        """The feed's state as an event; None if there is no feed."""

    def resync(self) -> bytes | None:
        """An event that announces a reset; None if the entries themselves show it."""


class TopicState:
    """The state of one market topic."""

    can_resync = True

    __slots__ = (
        "_book",
        "_history",
        "_latest",
        "_position",
        "encoder",
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
    ) -> None:
        self.encoder = encoder
        self._position = head
        self._latest = latest
        self.merges = stream.is_conflated
        # Only the last price counts; in other streams clients may need earlier entries.
        self._history: History | None = None
        if stream is not Stream.PRICE:
            self._history = History(max_messages=max_messages, max_bytes=max_bytes)
        self._book: BookReplica | None = None
        if stream is Stream.ORDERBOOK:
            self._book = BookReplica(head.seq, latest)

    @property
    def position(self) -> Position:
        """The position of the newest entry."""
        return self._position

    @property
    def ts_ms(self) -> int | None:
        """The time of the newest entry; None if there is none."""
        return None if self._latest is None else self._latest.ts_ms

    def accept(self, entry: Entry) -> bool:
        """Accept the next entry; False if it is already known."""
        if entry.position.seq <= self._position.seq and (
            entry.position.epoch == self._position.epoch
        ):
            return False
        self._position = entry.position
        self._latest = entry
        if self._history is not None:
            for evicted in self._history.append(entry):
                if self._book is not None:
                    self._book.apply(evicted)
        return True

    def reset(self, head: Position, latest: Entry | None) -> None:
        """Drop the history and restart at `head`, with `latest` as the state."""
        self._position = head
        self._latest = latest
        if self._history is not None:
            self._history.clear()
        if self._book is not None:
            self._book = BookReplica(head.seq, latest)

    def event(self, entry: Entry) -> bytes:
        """An entry as an event, for a client that has the entry before it."""
        return self.encoder.entry(entry)

    def prepend_history(self, entries: list[Entry]) -> None:
        """Add older entries from the broker to the history; no-op if `merges`."""
        if self._history is not None and not self.merges:
            self._history.prepend(entries_up_to(entries, self._position))

    def body(self, entry: Entry) -> bytes:
        """An entry as JSON, for a reply."""
        position = entry.position
        return self.encoder.body(
            position,
            kind=entry.kind,
            prev=position.seq - 1,
            ts_ms=entry.ts_ms,
            data=entry.data,
        )

    def since(self, seq: int) -> list[Entry] | None:
        """The entries after `seq`; None if some are gone."""
        if seq == self._position.seq:
            return []
        if self._history is None or not len(self._history):
            return None
        return self._history.since(seq)

    def status(self, since_ms: int | None) -> bytes | None:
        """The feed's state as an event."""
        if since_ms is None:
            return self.encoder.status(FeedState.LIVE, None)
        return self.encoder.status(FeedState.STALE, since_ms)

    def resync(self) -> bytes:
        """The event that announces a reset."""
        return self.encoder.status(FeedState.RESYNC, None)

    def snapshot(self, prev: int | None = None, merged: int = 1, age_ms: int = 0) -> bytes | None:
        """The full state as a message body; None if nothing was ever published."""
        latest = self._latest
        if latest is None:
            return None
        position = self._position
        return self.encoder.body(
            position,
            kind="snapshot",
            prev=position.seq - 1 if prev is None else prev,
            ts_ms=latest.ts_ms,
            data=self._snapshot_data(latest),
            merged=merged,
            age_ms=age_ms,
        )

    def catch_up(
        self, lag: Lag, now_ms: int, max_bytes: int, *, until_seq: int | None = None
    ) -> CatchUp:
        """What a client with this lag lacks: one merged message, or entries up to `max_bytes`."""
        position = self._position
        if not self.merges:
            return self._replay(lag, max_bytes, until_seq)
        if lag.last_seq == position.seq and not lag.needs_snapshot:
            return CatchUp([], position.seq)
        latest = self._latest
        assert latest is not None
        merged = position.seq - lag.last_seq
        age_ms = max(0, now_ms - (latest.ts_ms if lag.oldest_ms is None else lag.oldest_ms))
        if lag.needs_resync:
            # How many entries were lost in the reset is unknown.
            merged = 1
        kind, ts_ms, data = latest.kind, latest.ts_ms, latest.data
        if lag.needs_snapshot:
            # The client may have this position but no state.
            kind = "snapshot"
        if self._book is not None and (merged > 1 or lag.needs_snapshot):
            change = None if lag.needs_snapshot else self._merged_change(lag.last_seq)
            if change is None:
                body = self.snapshot(lag.last_seq, merged, age_ms)
                assert body is not None
                return CatchUp([self.encoder.event(body)], position.seq, merged, is_snapshot=True)
            data = orjson.dumps(change.body())
        body = self.encoder.body(
            position,
            kind=kind,
            prev=lag.last_seq,
            ts_ms=ts_ms,
            data=data,
            merged=merged,
            age_ms=age_ms,
        )
        return CatchUp([self.encoder.event(body)], position.seq, merged)

    def _replay(self, lag: Lag, max_bytes: int, until_seq: int | None) -> CatchUp:
        assert self._history is not None
        reached = lag.last_seq
        entries = None if lag.needs_snapshot else self.since(reached)
        if entries is None:
            # Entries are gone: the snapshot's `prev` shows the client the gap.
            body = self.snapshot(reached)
            assert body is not None
            return CatchUp([self.encoder.event(body)], self._position.seq, is_snapshot=True)
        events = []
        for entry in entries:
            if max_bytes <= 0 or reached == until_seq:
                break
            events.append(self.encoder.entry(entry))
            reached = entry.position.seq
            max_bytes -= len(events[-1])
        return CatchUp(events, reached)

    def _merged_change(self, last: int) -> BookChange | None:
        assert self._history is not None
        entries = self._history.since(last)
        return None if entries is None else merged_change(entries)

    def _snapshot_data(self, latest: Entry) -> bytes:
        if self._book is None:
            return latest.data
        assert self._history is not None
        return self._book.encode(self._position.seq, self._history)


def entries_up_to(entries: list[Entry], position: Position) -> list[Entry]:
    """The entries of the same epoch, up to `position`; empty if the epoch differs."""
    if not entries or entries[0].position.epoch != position.epoch:
        return []
    return [entry for entry in entries if entry.position.seq <= position.seq]
