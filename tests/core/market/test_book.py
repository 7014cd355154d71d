"""Order books: best first, exact, never crossed, bounded, with a checksum for everyone."""

import zlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.errors import RequestError
from server.core.market.book import OrderBook, merge_changes


def book(*, max_levels: int = 100) -> OrderBook:
    made = OrderBook(max_levels)
    made.update([("9.5", "2"), ("10.0", "1"), ("9.0", "3")], [("11.0", "4"), ("10.5", "5")])
    return made


def test_levels_stand_best_first_exactly_as_they_were_written() -> None:
    assert book().bids == [("10.0", "1"), ("9.5", "2"), ("9.0", "3")]
    assert book().asks == [("10.5", "5"), ("11.0", "4")]


def test_quantities_are_absolute_and_zero_removes() -> None:
    one = book()
    change = one.update([("10.0", "7"), ("9.0", "0.00"), ("8.0", "0")], [("12.0", "1")])
    assert one.bids == [("10.0", "7"), ("9.5", "2")]
    assert change.bids == [("10.0", "7"), ("9.0", "0")], "what was not there is not removed"
    assert change.asks == [("12.0", "1")]
    assert change.checksum == one.checksum()


def test_a_price_has_one_spelling_as_long_as_its_level_stands() -> None:
    one = book()
    assert one.update([("10", "6")], []).bids == [("10.0", "6")]
    assert one.update([("10.000", "0")], []).bids == [("10.0", "0")]
    assert one.update([("10", "6")], []).bids == [("10", "6")]


def test_prices_are_told_apart_however_many_digits_they_have() -> None:
    one = OrderBook(10)
    longest = "1." + "0" * 37
    one.update([], [(longest + "1", "1"), (longest + "2", "2")])
    assert one.asks == [(longest + "1", "1"), (longest + "2", "2")]
    one.update([("-" + longest + "1", "1"), ("-" + longest + "2", "2")], [])
    assert [price for price, _ in one.bids] == ["-" + longest + "1", "-" + longest + "2"]


@pytest.mark.parametrize(
    ("bids", "asks", "reason"),
    [
        ([("10.5", "1")], [], "crossed"),
        ([("9.5", "0"), ("12", "1")], [("11.0", "9")], "crossed"),
        ([], [("9.99", "1")], "crossed"),
        ([("9.5", "1"), ("9.50", "2")], [], "twice"),
        ([("8.0", "1")], [("12", "1"), ("12.0", "0")], "twice"),
    ],
)
def test_an_update_that_makes_no_sense_is_refused_and_changes_nothing(
    bids: list[tuple[str, str]], asks: list[tuple[str, str]], reason: str
) -> None:
    one = book()
    with pytest.raises(RequestError, match=reason):
        one.apply("update", bids, asks)
    assert one.snapshot() == book().snapshot()


def test_a_snapshot_that_makes_no_sense_is_refused_and_changes_nothing() -> None:
    one = book()
    for bids in ([("10.0", "1"), ("11.0", "1")], [("9.0", "1"), ("9", "1")]):
        with pytest.raises(RequestError):
            one.apply("snapshot", bids, [("11.0", "1")])
        assert one.snapshot() == book().snapshot()


def test_a_change_may_turn_the_market_over_at_once() -> None:
    one = book()
    one.update(
        [("10.0", "0"), ("9.5", "0"), ("12", "1"), ("9.0", "0")],
        [("13", "1"), ("10.5", "0"), ("11.0", "0")],
    )
    assert (one.bids, one.asks) == ([("12", "1")], [("13", "1")])


def test_a_checksum_that_is_given_must_be_right() -> None:
    one, other = book(), book()
    change = other.update([("9.9", "1")], [])
    with pytest.raises(RequestError, match="checksum"):
        one.update([("9.9", "1")], [], change.checksum + 1)
    assert one.snapshot() == book().snapshot()
    assert one.update([("9.9", "1")], [], change.checksum) == change


def test_a_snapshot_begins_anew() -> None:
    one = book()
    change = one.replace([("1", "1"), ("2", "2"), ("0.5", "0")], [("3", "3")])
    assert change.bids == one.bids == [("2", "2"), ("1", "1")]
    change.revert()
    assert one.snapshot() == book().snapshot()


def test_the_depth_is_bounded_and_what_falls_off_is_told() -> None:
    one = book(max_levels=3)
    change = one.update([("9.7", "1"), ("9.8", "1"), ("1.0", "1")], [])
    assert [price for price, _ in one.bids] == ["10.0", "9.8", "9.7"]
    assert change.bids == [("9.8", "1"), ("9.7", "1"), ("9.5", "0"), ("9.0", "0")]
    change.revert()
    assert one.snapshot() == book().snapshot()


def test_the_checksum_is_that_of_the_ten_best_levels_side_by_side() -> None:
    one = OrderBook(100)
    assert one.checksum() == zlib.crc32(b"")
    one.update([("10.0", "1"), ("9.5", "2")], [("10.5", "5")])
    # The example of docs/protocol.md.
    assert one.checksum() == zlib.crc32(b"10.0:1:10.5:5:9.5:2") == 2405454328
    one.update([(f"9.{i}0", "1") for i in range(5)], [(f"{i}.0", "1") for i in range(11, 31)])
    before = one.checksum()
    one.update([], [("29.0", "5")])
    assert one.checksum() == before, "level eleven does not count"
    one.update([], [("12.0", "5")])
    assert one.checksum() != before


def test_where_a_price_was_spelled_in_two_ways_the_last_word_stands_last() -> None:
    words = [("10.0", "0"), ("10.00", "5"), ("10.00", "0"), ("10.0", "7")]
    merged, _ = merge_changes([([word], []) for word in words])
    assert merged == [("10.00", "0"), ("10.0", "7")], "for a client that finds levels by number"


prices = st.integers(1, 30)
quantities = st.integers(0, 3).map(str)
changes = st.lists(
    st.tuples(st.booleans(), st.lists(st.tuples(prices, quantities), max_size=6)), max_size=20
)


@given(changes, st.integers(1, 8))
def test_merged_changes_lead_where_the_single_ones_do(
    steps: list[tuple[bool, list[tuple[int, str]]]], max_levels: int
) -> None:
    server = OrderBook(max_levels)
    client: tuple[dict[str, str], dict[str, str]] = ({}, {})
    sent = []
    for is_bid, levels in steps:
        # Several spellings of one price, and sides that can meet.
        named = {
            price: (f"{price}.{'0' * (price % 3 + 1)}", quantity) for price, quantity in levels
        }
        side = list(named.values())
        try:
            change = server.update(side, []) if is_bid else server.update([], side)
        except RequestError:
            continue
        sent.append((change.bids, change.asks))
        bids, asks = server.bids, server.asks
        assert len(bids) <= max_levels
        assert len(asks) <= max_levels
        assert [Decimal(p) for p, _ in bids] == sorted((Decimal(p) for p, _ in bids), reverse=True)
        assert [Decimal(p) for p, _ in asks] == sorted(Decimal(p) for p, _ in asks)
        assert not bids or not asks or Decimal(bids[0][0]) < Decimal(asks[0][0])
    for levels_of, merged in zip(client, merge_changes(sent), strict=True):
        for price, quantity in merged:
            if quantity == "0":
                levels_of.pop(price, None)
            else:
                levels_of[price] = quantity
    assert client == (dict(server.bids), dict(server.asks))


@given(changes)
def test_undoing_a_change_leaves_the_book_as_it_was(
    steps: list[tuple[bool, list[tuple[int, str]]]],
) -> None:
    one = OrderBook(5)
    for is_bid, levels in steps:
        side = [(str(price), quantity) for price, quantity in dict(levels).items()]
        before = one.snapshot()
        try:
            change = one.update(side, []) if is_bid else one.update([], side)
        except RequestError:
            assert one.snapshot() == before
            continue
        after = one.snapshot()
        change.revert()
        assert one.snapshot() == before
        assert one.update(side, []) == change if is_bid else one.update([], side) == change
        assert one.snapshot() == after
