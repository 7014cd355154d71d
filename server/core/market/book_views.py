"""Derives the entries of a view from those of its book; the same on every node."""

import orjson

from server.core.log.entries import Entry, Reset
from server.core.market.book import BookChange
from server.core.market.depth import Depth
from server.core.market.source_time import copy_source_ts
from server.core.market.topic_state import TopicState
from server.core.market.views import DepthView


class DerivedBook:
    """One view of a book on this node: it follows the book's state, which must be current."""

    def __init__(self, name: str, view: DepthView, source: TopicState) -> None:
        self._name = name
        self._source = source
        self._depth = Depth(view)
        # Of the newest entry of the view, and of the newest one of the book that is in it.
        self._last = self._head = source.position
        if source.ts_ms is not None:
            self._depth.replace(source.book())

    @property
    def latest(self) -> Entry | None:
        """The whole view as an entry; None if the book was never published."""
        latest = self._source.latest
        if latest is None:
            return None
        data = copy_source_ts(latest.data, orjson.dumps(self._depth.snapshot().body()))
        return Entry(self._name, self._head, latest.ts_ms, data, "snapshot")

    def derive(self, entry: Entry) -> Entry | None:
        """The entry of the view that a new entry of the book causes; None if none."""
        position = entry.position
        is_new_epoch = position.epoch != self._head.epoch
        if not is_new_epoch and position.seq <= self._head.seq:
            return None
        is_first = self._head.seq == 0 or is_new_epoch
        self._head = position
        book, bids, asks = self._source.follow_book(entry)
        if entry.kind == "snapshot" or is_first:
            if not self._depth.replace(book) and not is_first:
                return None
            return self._entry(entry, self._depth.snapshot(), "snapshot")
        change = self._depth.update(book, bids, asks)
        return None if change is None else self._entry(entry, change, "update")

    def advance(self) -> Entry | None:
        """An entry without a change up to the book's newest one; None if the view is there."""
        latest = self._source.latest
        if self._last == self._head or latest is None:
            return None
        return self._entry(latest, self._depth.unchanged(), "update")

    def restart(self, reset: Reset) -> Reset:
        """The reset of the view that a reset of the book causes."""
        self._last = self._head = reset.head
        self._depth.replace(self._source.book())
        return Reset(self._name, reset.head, self.latest)

    def _entry(self, source: Entry, change: BookChange, kind: str) -> Entry:
        data = copy_source_ts(source.data, orjson.dumps(change.body()))
        is_new_epoch = self._last.epoch != self._head.epoch
        after = self._head.seq - 1 if is_new_epoch else self._last.seq
        self._last = self._head
        return Entry(self._name, self._head, source.ts_ms, data, kind, after)
