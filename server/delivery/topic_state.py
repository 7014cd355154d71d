"""What one node knows of one topic: its state now, and how to bring a client up to it."""

from dataclasses import dataclass
from typing import Protocol

import orjson

from client_sdk.contract import FeedState, Stream
from server.core.log.backlog import Lag
from server.core.log.entries import Entry, Position
from server.core.log.history import History
from server.core.market.book import BookChange
from server.delivery.book_replica import BookReplica, merged_change
from server.delivery.messages import MessageEncoder


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Events that bring a client to a position, and how they came to be."""

    events: list[bytes]
    reached: int
    merged: int = 0
    is_snapshot: bool = False
    # What was missed is gone, and no message can tell: the client has to come back.
    is_lost: bool = False


class ChannelState(Protocol):
    """What a node knows of anything that has entries and listeners."""

    @property
    def position(self) -> Position:
        """The newest entry's place."""

    @property
    def merges(self) -> bool:
        """Whether a newer message may stand for older ones."""

    @property
    def can_resync(self) -> bool:
        """Whether a listener can be told in passing that it begins anew."""

    def accept(self, entry: Entry) -> bool:
        """Take the next entry; False where it is known already."""

    def reset(self, head: Position, latest: Entry | None) -> None:
        """Forget what came: it stands here now."""

    def event(self, entry: Entry) -> bytes:
        """An entry for a client that has the one before it."""

    def since(self, seq: int) -> list[Entry] | None:
        """The entries after this one, where all of them are at hand."""

    def prepend_history(self, entries: list[Entry]) -> None:
        """Keep what the broker told of the past for whoever asks next; nothing where it merges."""

    def catch_up(
        self, lag: Lag, now_ms: int, max_bytes: int, *, until_seq: int | None = None
    ) -> CatchUp:
        """What a client that has come so far lacks, or as much of it as fits.

        Where nothing is merged, no more than `until`.
        """

    def status(self, since_ms: int | None) -> bytes | None:
        """Whether its feed speaks, as an event; None where it has none."""

    def resync(self) -> bytes | None:
        """That what comes next does not follow on what came, as an event; None where it tells."""


class TopicState:
    """Follows the entries of one market topic, in their order."""

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
        # Of a price only the last counts; of anything else a client may need what led to it.
        self._history: History | None = None
        if stream is not Stream.PRICE:
            self._history = History(max_messages=max_messages, max_bytes=max_bytes)
        self._book: BookReplica | None = None
        if stream is Stream.ORDERBOOK:
            self._book = BookReplica(head.seq, latest)

    @property
    def position(self) -> Position:
        """The newest entry's place."""
        return self._position

    @property
    def ts_ms(self) -> int | None:
        """When the newest entry came."""
        return None if self._latest is None else self._latest.ts_ms

    def accept(self, entry: Entry) -> bool:
        """Take the next entry; False where it is known already."""
        if entry.position.seq <= self._position.seq and (
            entry.position.epoch == self._position.epoch
        ):
            return False
        self._position = entry.position
        self._latest = entry
        if self._history is not None:
            for gone in self._history.append(entry):
                if self._book is not None:
                    self._book.apply(gone)
        return True

    def reset(self, head: Position, latest: Entry | None) -> None:
        """Forget what came: it stands here now."""
        self._position = head
        self._latest = latest
        if self._history is not None:
            self._history.clear()
        if self._book is not None:
            self._book = BookReplica(head.seq, latest)

    def event(self, entry: Entry) -> bytes:
        """An entry for a client that has the one before it."""
        return self.encoder.entry(entry)

    def prepend_history(self, entries: list[Entry]) -> None:
        """Keep what the broker told of the past for whoever asks next; nothing where it merges."""
        if self._history is not None and not self.merges:
            self._history.prepend(entries_up_to(entries, self._position))

    def body(self, entry: Entry) -> bytes:
        """The same as JSON, for an answer."""
        position = entry.position
        return self.encoder.body(
            position,
            kind=entry.kind,
            prev=position.seq - 1,
            ts_ms=entry.ts_ms,
            data=entry.data,
        )

    def since(self, seq: int) -> list[Entry] | None:
        """The entries after this one, where all of them are at hand."""
        if seq == self._position.seq:
            return []
        if self._history is None or not len(self._history):
            return None
        return self._history.since(seq)

    def status(self, since_ms: int | None) -> bytes | None:
        """Whether the feed speaks, as an event."""
        if since_ms is None:
            return self.encoder.status(FeedState.LIVE, None)
        return self.encoder.status(FeedState.STALE, since_ms)

    def resync(self) -> bytes:
        """That what comes next does not follow on what came, as an event."""
        return self.encoder.status(FeedState.RESYNC, None)

    def snapshot(self, prev: int | None = None, merged: int = 1, age_ms: int = 0) -> bytes | None:
        """The whole state as a message's body; None where nothing was ever published."""
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
        """What a client that has come so far lacks: merged, or as many kept ones as fit."""
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
            # Nothing was merged into it: how much lies between, nobody can tell.
            merged = 1
        kind, ts_ms, data = latest.kind, latest.ts_ms, latest.data
        if lag.needs_snapshot:
            # It may stand at this place already, and have nothing to go with it.
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
        last = lag.last_seq
        entries = None if lag.needs_snapshot else self.since(last)
        if entries is None:
            # Told, not skipped in silence: the client stands at a new position from here on.
            body = self.snapshot(last)
            assert body is not None
            return CatchUp([self.encoder.event(body)], self._position.seq, is_snapshot=True)
        events = []
        for entry in entries:
            if max_bytes <= 0 or last == until_seq:
                break
            events.append(self.encoder.entry(entry))
            last = entry.position.seq
            max_bytes -= len(events[-1])
        return CatchUp(events, last)

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
    """Those that lead to this place, and not beyond it."""
    if not entries or entries[0].position.epoch != position.epoch:
        return []
    return [entry for entry in entries if entry.position.seq <= position.seq]
