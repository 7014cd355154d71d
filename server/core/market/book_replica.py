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

    __slots__ = ("_book", "_encoded", "seq")

    def __init__(self, seq: int, latest: Entry | None) -> None:
        # The newest entry applied.
        self.seq = seq
        self._book = OrderBook(_ANY_DEPTH)
        self._encoded: tuple[int, bytes] = (-1, b"")
        if latest is not None:
            self._book.replace(*_levels(latest))

    def apply(self, entry: Entry) -> None:
        """Apply an entry; no-op if it is applied already."""
        if entry.position.seq <= self.seq:
            return
        bids, asks = _levels(entry)
        if entry.kind == "snapshot":
            self._book.replace(bids, asks)
        else:
            self._book.update(bids, asks)
        self.seq = entry.position.seq

    def encode(self, seq: int, history: History) -> bytes:
        """The full book at `seq` as JSON, cached; `history` must reach up to `seq`."""
        if self._encoded[0] != seq:
            for entry in history.since(self.seq) or ():
                self.apply(entry)
            self._encoded = (seq, orjson.dumps(self._book.snapshot().body()))
        return self._encoded[1]


def merged_change(entries: list[Entry]) -> BookChange | None:
    """Merge entries into one change; None if a snapshot is cheaper or one is among them."""
    remaining_bytes = _MAX_MERGED_BYTES
    for entry in entries:
        remaining_bytes -= len(entry.data)
        if remaining_bytes < 0 or entry.kind == "snapshot":
            return None
    bids, asks = merge_changes(map(_levels, entries))
    return BookChange(bids, asks, orjson.loads(entries[-1].data)["checksum"])


def _levels(entry: Entry) -> tuple[Levels, Levels]:
    data = orjson.loads(entry.data)
    return cast("Levels", data["bids"]), cast("Levels", data["asks"])
