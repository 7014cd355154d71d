"""Order books: sorted, exact, never crossed, bounded, with a checksum."""

import zlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.errors import RequestError
from server.core.market.book import OrderBook, merge_changes


def make_book(*, max_levels: int = 100) -> OrderBook:
    book = OrderBook(max_levels)
    book.update([("9.5", "2"), ("10.0", "1"), ("9.0", "3")], [("11.0", "4"), ("10.5", "5")])
    return book


def test_levels_are_best_first_and_exactly_as_written() -> None:
    assert make_book().bids == [("10.0", "1"), ("9.5", "2"), ("9.0", "3")]
    assert make_book().asks == [("10.5", "5"), ("11.0", "4")]


def test_quantities_are_absolute_and_zero_removes() -> None:
    book = make_book()
    change = book.update([("10.0", "7"), ("9.0", "0.00"), ("8.0", "0")], [("12.0", "1")])
    assert book.bids == [("10.0", "7"), ("9.5", "2")]
    assert change.bids == [("10.0", "7"), ("9.0", "0")], "an unknown level is not removed"
    assert change.asks == [("12.0", "1")]
    assert change.checksum == book.checksum()


def test_level_keeps_the_first_spelling_of_its_price() -> None:
    book = make_book()
    assert book.update([("10", "6")], []).bids == [("10.0", "6")]
    assert book.update([("10.000", "0")], []).bids == [("10.0", "0")]
    assert book.update([("10", "6")], []).bids == [("10", "6")]


def test_prices_of_many_digits_are_distinguished() -> None:
    book = OrderBook(10)
    longest = "1." + "0" * 37
    book.update([], [(longest + "1", "1"), (longest + "2", "2")])
    assert book.asks == [(longest + "1", "1"), (longest + "2", "2")]
    book.update([("-" + longest + "1", "1"), ("-" + longest + "2", "2")], [])
    assert [price for price, _ in book.bids] == ["-" + longest + "1", "-" + longest + "2"]


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
def test_invalid_update_is_refused_and_changes_nothing(
    bids: list[tuple[str, str]], asks: list[tuple[str, str]], reason: str
) -> None:
    book = make_book()
    with pytest.raises(RequestError, match=reason):
        book.apply("update", bids, asks)
    assert book.snapshot() == make_book().snapshot()


def test_invalid_snapshot_is_refused_and_changes_nothing() -> None:
    book = make_book()
    for bids in ([("10.0", "1"), ("11.0", "1")], [("9.0", "1"), ("9", "1")]):
        with pytest.raises(RequestError):
            book.apply("snapshot", bids, [("11.0", "1")])
        assert book.snapshot() == make_book().snapshot()


def test_update_may_cross_the_old_levels_if_it_removes_them() -> None:
    book = make_book()
    book.update(
        [("10.0", "0"), ("9.5", "0"), ("12", "1"), ("9.0", "0")],
        [("13", "1"), ("10.5", "0"), ("11.0", "0")],
    )
    assert (book.bids, book.asks) == ([("12", "1")], [("13", "1")])


def test_given_checksum_must_match() -> None:
    book, other = make_book(), make_book()
    change = other.update([("9.9", "1")], [])
    with pytest.raises(RequestError, match="checksum"):
        book.update([("9.9", "1")], [], change.checksum + 1)
    assert book.snapshot() == make_book().snapshot()
    assert book.update([("9.9", "1")], [], change.checksum) == change


def test_snapshot_replaces_the_book() -> None:
    book = make_book()
    change = book.replace([("1", "1"), ("2", "2"), ("0.5", "0")], [("3", "3")])
    assert change.bids == book.bids == [("2", "2"), ("1", "1")]
    change.revert()
    assert book.snapshot() == make_book().snapshot()


def test_change_contains_levels_removed_for_depth() -> None:
    book = make_book(max_levels=3)
    change = book.update([("9.7", "1"), ("9.8", "1"), ("1.0", "1")], [])
    assert [price for price, _ in book.bids] == ["10.0", "9.8", "9.7"]
    assert change.bids == [("9.8", "1"), ("9.7", "1"), ("9.5", "0"), ("9.0", "0")]
    change.revert()
    assert book.snapshot() == make_book().snapshot()


def test_checksum_covers_the_ten_best_levels() -> None:
    book = OrderBook(100)
    assert book.checksum() == zlib.crc32(b"")
    book.update([("10.0", "1"), ("9.5", "2")], [("10.5", "5")])
    # The example of docs/protocol.md.
    assert book.checksum() == zlib.crc32(b"10.0:1:10.5:5:9.5:2") == 2405454328
    book.update([(f"9.{i}0", "1") for i in range(5)], [(f"{i}.0", "1") for i in range(11, 31)])
    before = book.checksum()
    book.update([], [("29.0", "5")])
    assert book.checksum() == before, "level eleven does not count"
    book.update([], [("12.0", "5")])
    assert book.checksum() != before


def test_last_spelling_of_a_merged_price_comes_last() -> None:
    changes = [("10.0", "0"), ("10.00", "5"), ("10.00", "0"), ("10.0", "7")]
    merged, _ = merge_changes([([change], []) for change in changes])
    assert merged == [("10.00", "0"), ("10.0", "7")], "clients may find levels by number"


prices = st.integers(1, 30)
quantities = st.integers(0, 3).map(str)
changes = st.lists(
    st.tuples(st.booleans(), st.lists(st.tuples(prices, quantities), max_size=6)), max_size=20
)


@given(changes, st.integers(1, 8))
def test_merged_changes_have_the_effect_of_single_ones(
    steps: list[tuple[bool, list[tuple[int, str]]]], max_levels: int
) -> None:
    server = OrderBook(max_levels)
    client: tuple[dict[str, str], dict[str, str]] = ({}, {})
    sent = []
    for is_bid, levels in steps:
        # Several spellings of one price, and sides that can cross.
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
def test_revert_restores_the_book(
    steps: list[tuple[bool, list[tuple[int, str]]]],
) -> None:
    book = OrderBook(5)
    for is_bid, levels in steps:
        side = [(str(price), quantity) for price, quantity in dict(levels).items()]
        before = book.snapshot()
        try:
            change = book.update(side, []) if is_bid else book.update([], side)
        except RequestError:
            assert book.snapshot() == before
            continue
        after = book.snapshot()
        change.revert()
        assert book.snapshot() == before
        assert book.update(side, []) == change if is_bid else book.update([], side) == change
        assert book.snapshot() == after
