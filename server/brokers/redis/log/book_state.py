"""Makes the whole state of a book from the last one that was stored, and the changes since."""

from typing import cast

import orjson

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError
from server.core.log.entries import Entry
from server.core.market.book import Levels, OrderBook

# Whoever published the changes has bounded the book.
_MAX_DEPTH = 1 << 30


def rebuild_book(
    last: Entry | None, full_state: Entry | None, updates: list[Entry]
) -> Entry | None:
    """The newest entry, its data the whole state."""
    if last is None or full_state is None:
        return last
    if not updates:
        return full_state
    book = OrderBook(_MAX_DEPTH)
    try:
        for entry in (full_state, *updates):
            bids, asks = _levels(entry)
            book.apply(entry.kind, bids, asks)
    except (KeyError, ValueError, TypeError, ArithmeticError):
        # Nobody of ours has written it. Whoever asks is told, and the reader goes on.
        raise FloorcastError(
            ErrorCode.SERVER_INTERNAL, "what is kept of it is not a book"
        ) from None
    newest = updates[-1]
    data = orjson.dumps(book.snapshot().body())
    return Entry(last.channel, newest.position, newest.ts_ms, data, "snapshot")


def _levels(entry: Entry) -> tuple[Levels, Levels]:
    data = orjson.loads(entry.data)
    return cast("Levels", data["bids"]), cast("Levels", data["asks"])
