"""Rebuilds an order book from its last stored state and the updates since."""

from typing import cast

import orjson

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError
from server.core.log.entries import Entry
from server.core.market.book import Levels, OrderBook
from server.core.market.source_time import copy_source_ts

# The publisher has already limited the depth.
_MAX_DEPTH = 1 << 30


def rebuild_book(
    last: Entry | None, full_state: Entry | None, updates: list[Entry]
) -> Entry | None:
    """The newest entry, with the full state as data; raises if the log holds no valid book."""
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
        # Written by a foreign client: fail this read only.
        raise FloorcastError(
            ErrorCode.SERVER_INTERNAL, "the stored state is not an order book"
        ) from None
    newest = updates[-1]
    data = copy_source_ts(newest.data, orjson.dumps(book.snapshot().body()))
    return Entry(last.channel, newest.position, newest.ts_ms, data, "snapshot")


def _levels(entry: Entry) -> tuple[Levels, Levels]:
    data = orjson.loads(entry.data)
    return cast("Levels", data["bids"]), cast("Levels", data["asks"])
