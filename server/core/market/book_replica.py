"""Rebuilds a topic's order book from its entries, only when a client needs a snapshot."""

from typing import cast

import orjson

from server.core.log.entries import Entry
from server.core.log.history import History
from server.core.market.book import BookChange, Levels, OrderBook, merge_changes

# The publisher bounds the book already; its changes remove the levels beyond that depth.
_ANY_DEPTH = 1 << 30
# Parsing more than this for one client would block the loop for milliseconds; a snapshot is
# encoded once for all clients.
_MAX_MERGED_BYTES = 8 * 1024


class BookReplica:
    """The book before the oldest entry of the history; `encode` applies the entries after it."""

    __slots__ = ("_book", "_encoded", "_last_levels", "seq")

    def __init__(self, seq: int, latest: Entry | None) -> None:
        # The newest entry applied.
        self.seq = seq
        self._book = OrderBook(_ANY_DEPTH)
        self._encoded: tuple[int, bytes] = (-1, b"")
        # Of the newest entry applied.
        self._last_levels: tuple[Levels, Levels] = ((), ())
        if latest is not None:
            self._book.replace(*_levels(latest))

    def apply(self, entry: Entry) -> None:
        """Apply an entry; no-op if it is applied already."""
        if entry.position.seq <= self.seq:
            return
        bids, asks = self._last_levels = _levels(entry)
        if entry.kind == "snapshot":
            self._book.replace(bids, asks)
        else:
            self._book.follow(bids, asks)
        self.seq = entry.position.seq

    def current(self, history: History) -> OrderBook:
        """The book with all entries of the history applied; read only."""
        for entry in history.since(self.seq) or ():
            self.apply(entry)
        return self._book

    def follow(self, newest: Entry, history: History) -> tuple[OrderBook, Levels, Levels]:
        """The book with the newest entry applied, and that entry's levels; parsed once for all."""
        if newest.position.seq > self.seq + 1:
            self.current(history)
        self.apply(newest)
        if newest.position.seq < self.seq:
            return self._book, *_levels(newest)
        return self._book, *self._last_levels

    def encode(self, seq: int, history: History) -> bytes:
        """The full book at `seq` as JSON, cached; `history` must reach up to `seq`."""
        if self._encoded[0] != seq:
            self._encoded = (seq, orjson.dumps(self.current(history).snapshot().body()))
        return self._encoded[1]

    def merge(self, entries: list[Entry]) -> bytes | None:
        """Merge entries into one change; None if a snapshot is cheaper or one is among them."""
        remaining_bytes = _MAX_MERGED_BYTES
        for entry in entries:
            remaining_bytes -= len(entry.data)
            if remaining_bytes < 0 or entry.kind == "snapshot":
                return None
        bids, asks = merge_changes(map(_levels, entries))
        checksum = orjson.loads(entries[-1].data)["checksum"]
        return orjson.dumps(BookChange(bids, asks, checksum).body())


def _levels(entry: Entry) -> tuple[Levels, Levels]:
    data = orjson.loads(entry.data)
    return cast("Levels", data["bids"]), cast("Levels", data["asks"])
