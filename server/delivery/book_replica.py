"""The order book that a topic's entries lead to, made only when somebody needs it."""

from typing import cast

import orjson

from server.core.log.entries import Entry
from server.core.log.history import History
from server.core.market.book import BookChange, Levels, OrderBook, merge_changes

# The publisher's book is bounded already, and its changes say what fell off the end.
_ANY_DEPTH = 1 << 30
# Reading more than this again for one client takes milliseconds that are everybody's; the whole
# book is made once for all who need it.
_MAX_MERGED_BYTES = 8 * 1024


class BookReplica:
    """Stands where the history begins: what is kept there is applied when all of it is wanted."""

    __slots__ = ("_book", "_encoded", "seq")

    def __init__(self, seq: int, latest: Entry | None) -> None:
        # The newest entry that is in it.
        self.seq = seq
        self._book = OrderBook(_ANY_DEPTH)
        self._encoded: tuple[int, bytes] = (-1, b"")
        if latest is not None:
            self._book.replace(*_levels(latest))

    def apply(self, entry: Entry) -> None:
        """Take an entry, unless it is in it already."""
        if entry.position.seq <= self.seq:
            return
        bids, asks = _levels(entry)
        if entry.kind == "snapshot":
            self._book.replace(bids, asks)
        else:
            self._book.update(bids, asks)
        self.seq = entry.position.seq

    def encode(self, seq: int, history: History) -> bytes:
        """All of it as JSON at this place, which the history leads to; made once."""
        if self._encoded[0] != seq:
            for entry in history.since(self.seq) or ():
                self.apply(entry)
            self._encoded = (seq, orjson.dumps(self._book.snapshot().body()))
        return self._encoded[1]


def merged_change(entries: list[Entry]) -> BookChange | None:
    """What these changes come to; None where that costs more than the whole book."""
    room = _MAX_MERGED_BYTES
    for entry in entries:
        room -= len(entry.data)
        if room < 0 or entry.kind == "snapshot":
            return None
    bids, asks = merge_changes(map(_levels, entries))
    return BookChange(bids, asks, orjson.loads(entries[-1].data)["checksum"])


def _levels(entry: Entry) -> tuple[Levels, Levels]:
    data = orjson.loads(entry.data)
    return cast("Levels", data["bids"]), cast("Levels", data["asks"])
