"""Views: their names, and the exact sums of grouped books."""

import pytest

from client_sdk.contract import Stream
from server.core.errors import RequestError
from server.core.market.book import OrderBook, checksum_of
from server.core.market.depth import Depth
from server.core.market.topics import Topic
from server.core.market.views import BarsView, DepthView, parse_view


@pytest.mark.parametrize(
    "name",
    [
        *("ORDERBOOK:BTC/USDT:USDT@10", "ORDERBOOK:A@200/0.5", "ORDERBOOK:A@1/100"),
        *("TRADES:A@1s", "TRADES:A@15m", "TRADES:A@1d"),
    ],
)
def test_view_name_round_trips(name: str) -> None:
    topic = Topic.parse(name)
    assert topic.name == name
    assert topic.is_merged
    assert topic.source == Topic.parse(name.partition("@")[0])


@pytest.mark.parametrize(
    "name",
    [
        *("ORDERBOOK:A@", "ORDERBOOK:A@0", "ORDERBOOK:A@201", "ORDERBOOK:A@010", "ORDERBOOK:A@x"),
        *("ORDERBOOK:A@10/", "ORDERBOOK:A@10/0", "ORDERBOOK:A@10/0.50", "ORDERBOOK:A@10/05"),
        *("ORDERBOOK:A@10/-1", "ORDERBOOK:A@10/1e2", "ORDERBOOK:A@10/0.0", "ORDERBOOK:A@10/5."),
        *("TRADES:A@2m", "TRADES:A@10", "PRICE:A@10", "USER_DATA@10", "ORDERBOOK:@10"),
        "ORDERBOOK:A@10/" + "1" * 17,
    ],
)
def test_malformed_view_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(RequestError) as refusal:
        Topic.parse(name)
    assert refusal.value.message


def test_view_of_a_lower_case_topic_gets_the_right_spelling() -> None:
    with pytest.raises(RequestError, match=r"use TRADES:BTCUSDT@1m$"):
        Topic.parse("trades:btcusdt@1m")


def test_interval_of_bars_has_its_length() -> None:
    view = parse_view(Stream.TRADES, "4h")
    assert isinstance(view, BarsView)
    assert view.interval_ms == 4 * 3_600_000


def grouped(step: str) -> tuple[Depth, OrderBook]:
    """A grouped view of three levels, and its book."""
    view = parse_view(Stream.ORDERBOOK, f"3/{step}")
    assert isinstance(view, DepthView)
    return Depth(view), OrderBook(1000)


def test_bids_are_grouped_down_and_asks_up() -> None:
    depth, book = grouped("0.5")
    book.replace([("10.4", "1"), ("10.1", "2.50"), ("9.99", "1")], [("10.6", "1"), ("11.0", "2")])
    depth.replace(book)
    view = depth.snapshot()
    assert view.bids == [("10", "3.5"), ("9.5", "1")]
    assert view.asks == [("11", "3")]
    assert view.checksum == checksum_of(view.bids, view.asks)


def test_negative_prices_are_grouped_away_from_the_other_side() -> None:
    depth, book = grouped("5")
    book.replace([("-7", "1"), ("-10", "1")], [("-3", "1"), ("2", "1")])
    depth.replace(book)
    assert depth.snapshot().bids == [("-10", "2")]
    assert depth.snapshot().asks == [("0", "1"), ("5", "1")]


def test_sums_are_exact_and_do_not_depend_on_the_past() -> None:
    small, large = "0.00000000000000000000000000000000000001", "9" * 39
    depth, book = grouped("10")
    book.replace([("11", "1.10"), ("12", small), ("13", large)], [])
    depth.replace(book)
    assert depth.snapshot().bids == [("10", f"1{'0' * 39}.1{'0' * 36}1")]
    change = book.update([("13", "0"), ("12", "0")], [])
    view = depth.update(book, change.bids, change.asks)
    assert view is not None
    assert view.bids == [("10", "1.1")]


def test_change_beyond_the_depth_changes_nothing() -> None:
    depth, book = Depth(DepthView(1)), OrderBook(1000)
    book.replace([("3", "1"), ("2", "1")], [("5", "1")])
    depth.replace(book)
    change = book.update([("2", "7"), ("1", "1")], [("6", "1")])
    assert depth.update(book, change.bids, change.asks) is None
    change = book.update([("3", "0")], [])
    view = depth.update(book, change.bids, change.asks)
    assert view is not None
    assert view.bids == [("3", "0"), ("2", "7")]
