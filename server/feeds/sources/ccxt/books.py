"""Books of ccxt with exact numbers: a float keeps 15 digits, and texts do not sort by value."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ccxt.async_support.base.ws import order_book_side as sides
from ccxt.async_support.base.ws.order_book import (
    CountedOrderBook,
    IndexedOrderBook,
    OrderBook,
)


def _number(value: Any) -> Decimal | None:
    """ccxt gives text, or a float whose shortest digits are the venue's."""
    return None if value is None else Decimal(str(value))


def _exact(kind: Any, *, numbers: int = 2) -> Any:
    """A side of a book whose first entries of a level are exact numbers."""

    class Exact(kind):  # type: ignore[misc]
        def storeArray(self, delta: list[Any]) -> None:  # noqa: N802
            super().storeArray([*map(_number, delta[:numbers]), *delta[numbers:]])

    return Exact


_BOOKS = {
    OrderBook: (_exact(sides.Bids), _exact(sides.Asks)),
    IndexedOrderBook: (_exact(sides.IndexedBids), _exact(sides.IndexedAsks)),
    CountedOrderBook: (
        _exact(sides.CountedBids, numbers=3),
        _exact(sides.CountedAsks, numbers=3),
    ),
}


def exact_book(kind: Any, snapshot: Mapping[str, Any], depth: int | None) -> Any:
    """A book of one of ccxt's kinds."""
    bids, asks = _BOOKS[kind]
    exact = {
        "bids": bids(snapshot.get("bids", []), depth),
        "asks": asks(snapshot.get("asks", []), depth),
    }
    book = kind({**snapshot, "bids": [], "asks": []}, depth)
    # A book's own `update` takes a snapshot.
    dict.update(book, exact)
    return book
