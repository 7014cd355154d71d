"""The books of ccxt are exact, and the library changes nothing else of the process."""

import importlib

import pytest
from aiohttp.compression_utils import ZLibBackend

from tests.feeds.sources.ccxt.rig import NEEDS_CCXT

pytestmark = [pytest.mark.sockets, NEEDS_CCXT]

LONG = "0.12345678901234567890"


@pytest.mark.parametrize(
    ("kind", "rest"), [("OrderBook", []), ("CountedOrderBook", ["2"]), ("IndexedOrderBook", ["a"])]
)
def test_levels_keep_all_digits_and_sort_by_value(kind: str, rest: list[str]) -> None:
    ccxt_books = importlib.import_module("ccxt.async_support.base.ws.order_book")
    books = importlib.import_module("server.feeds.sources.ccxt.books")
    levels = [["9", "1", *rest], ["10", LONG, *rest], [LONG, "1", *[f"{each}1" for each in rest]]]
    # The ids of orders differ.
    levels[1][2:] = [f"{each}2" for each in rest]
    book = books.exact_book(getattr(ccxt_books, kind), {"bids": levels}, None)
    assert [str(price) for price, *_ in book["bids"]] == ["10", "9", LONG]
    assert str(book["bids"][0][1]) == LONG
    book["bids"].storeArray(["9.0", "0", *rest])
    assert [str(price) for price, *_ in book["bids"]] == ["10", LONG]


def test_library_leaves_the_compression_of_the_process_alone() -> None:
    importlib.import_module("server.feeds.sources.ccxt.exchange")
    assert ZLibBackend.name == "zlib"
