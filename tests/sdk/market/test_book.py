"""A book equals the server's, or knows that it does not."""

import zlib
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.contract import BookMessage, Position
from client_sdk.market.book import Book
from server.core.errors import RequestError
from server.core.market.book import OrderBook, merge_changes

Levels = list[tuple[str, str]]


def message(
    seq: int,
    bids: Levels,
    asks: Levels,
    checksum: int | None = None,
    *,
    kind: str = "update",
    prev: int | None = None,
    epoch: str = "e1",
) -> BookMessage:
    """A message as a server sends it."""
    data: dict[str, Any] = {"bids": bids, "asks": asks}
    if checksum is not None:
        data["checksum"] = checksum
    return BookMessage.model_validate(
        {
            "stream": "ORDERBOOK",
            "symbol": "A",
            "type": kind,
            "epoch": epoch,
            "seq": seq,
            "prev": seq - 1 if prev is None else prev,
            "ts": 1,
            "data": data,
        }
    )


def book() -> Book:
    """Three bids and two asks, at position 5."""
    new = Book("A")
    bids, asks = [("10.0", "1"), ("9.5", "2"), ("9.0", "3")], [("10.5", "5"), ("11.0", "4")]
    assert new.apply(message(5, bids, asks, kind="snapshot"))
    return new


def test_new_book_is_empty() -> None:
    one = Book("A")
    assert (one.symbol, one.position, one.bids, one.asks) == ("A", None, [], [])
    assert (one.best_bid, one.best_ask, one.mid) == (None, None, None)
    assert one.checksum() == zlib.crc32(b"")


def test_levels_are_decimals_sorted_best_first() -> None:
    one = book()
    assert one.bids == [(Decimal(p), Decimal(q)) for p, q in (("10", 1), ("9.5", 2), ("9", 3))]
    assert one.asks == [(Decimal("10.5"), Decimal(5)), (Decimal(11), Decimal(4))]
    assert (one.best_bid, one.best_ask) == (Decimal(10), Decimal("10.5"))
    assert one.position == Position(epoch="e1", seq=5)
    assert repr(one) == "<Book A 10.0 | 10.5>"


def test_update_sets_and_removes_levels() -> None:
    one = book()
    assert one.apply(
        message(6, [("10.0", "0"), ("9.0", "0.00"), ("9.7", "8"), ("1", "0")], [("10.5", "6")])
    )
    assert [float(price) for price, _ in one.bids] == [9.7, 9.5]
    assert one.asks[0] == (Decimal("10.5"), Decimal(6))
    assert one.position == Position(epoch="e1", seq=6)


def test_mid_is_exact_for_the_longest_prices() -> None:
    one = Book("A")
    bid, ask = f"-{'2' * 30}.0003", f"{'1' * 38}.1"
    one.apply(message(1, [(bid, "1")], [(ask, "1")], kind="snapshot"))
    assert one.best_bid == Decimal(bid)
    assert one.mid is not None
    assert Fraction(one.mid) == (Fraction(bid) + Fraction(ask)) / 2


def test_one_sided_book_has_no_mid() -> None:
    one = book()
    one.apply(message(6, [], [("10.5", "0"), ("11.0", "0")]))
    assert (one.best_ask, one.mid) == (None, None)


def test_checksum_matches_the_documented_example() -> None:
    one = Book("A")
    bids, asks = [("10.0", "1"), ("9.5", "2")], [("10.5", "5")]
    # The example of docs/protocol.md.
    assert one.apply(message(1, bids, asks, 2405454328, kind="snapshot"))
    assert one.checksum() == 2405454328
    assert one.apply(message(2, [], [("12", "1.0")], zlib.crc32(b"10.0:1:10.5:5:9.5:2:12:1.0")))


def test_checksum_mismatch_needs_a_snapshot() -> None:
    one = book()
    assert not one.apply(message(6, [("10.0", "2")], [], 1))
    assert one.position is None
    assert not one.apply(message(7, [("10.0", "3")], []))
    assert not one.apply(message(8, [], [], 1, kind="snapshot"))
    assert one.position is None
    assert one.apply(message(8, [("1", "1")], [], zlib.crc32(b"1:1"), kind="snapshot"))
    assert one.bids == [(Decimal(1), Decimal(1))]
    assert one.position == Position(epoch="e1", seq=8)


def test_update_before_a_snapshot_is_refused() -> None:
    one = Book("A")
    assert not one.apply(message(1, [("1", "1")], [], prev=0))
    assert one.bids == []


@pytest.mark.parametrize(
    "lost",
    [
        message(7, [("1", "1")], [], prev=6),
        message(6, [("1", "1")], [], epoch="e2"),
        message(7, [], [], kind="heartbeat", prev=7),
        message(5, [], [], kind="heartbeat", epoch="e2", prev=5),
    ],
    ids=["gap", "another epoch", "heartbeat ahead", "heartbeat of another epoch"],
)
def test_message_behind_a_gap_is_refused_and_changes_no_level(lost: BookMessage) -> None:
    one = book()
    assert not one.apply(lost)
    assert one.position is None
    assert (one.bids, one.asks) == (book().bids, book().asks)


@pytest.mark.parametrize(
    "known",
    [
        message(5, [("1", "1")], []),
        message(4, [("1", "1")], []),
        message(4, [("1", "1")], [], kind="snapshot"),
        message(5, [], [], kind="heartbeat", prev=5),
    ],
    ids=["duplicate", "older update", "older snapshot", "heartbeat"],
)
def test_known_message_changes_nothing(known: BookMessage) -> None:
    one = book()
    assert one.apply(known)
    assert (one.bids, one.asks, one.position) == (book().bids, book().asks, book().position)


def test_update_that_overlaps_known_changes_is_applied() -> None:
    one = book()
    assert one.apply(message(8, [("9.5", "7")], [], prev=3))
    assert one.bids[1] == (Decimal("9.5"), Decimal(7))
    assert one.position == Position(epoch="e1", seq=8)


def test_snapshot_of_another_epoch_replaces_the_book() -> None:
    one = book()
    assert one.apply(message(1, [("3", "1")], [], kind="snapshot", epoch="e2"))
    assert one.bids == [(Decimal(3), Decimal(1))]
    assert one.asks == []
    assert one.position == Position(epoch="e2", seq=1)


def test_checksum_uses_the_last_spelling_of_a_price() -> None:
    one = book()
    update = message(9, [("10.0", "0"), ("10.00", "4")], [("10.5", "0"), ("11.0", "0")], prev=5)
    assert one.apply(update)
    assert one.checksum() == zlib.crc32(b"10.00:4:9.5:2:9.0:3")


prices = st.integers(1, 30)
quantities = st.sampled_from(["0", "0.0", "1", "2.50", "3"])
changes_of_a_side = st.lists(st.tuples(prices, quantities), max_size=6)
# The fate of an update between server and client.
fates = st.sampled_from(["sent", "sent", "sent", "merged with the next", "lost", "sent twice"])
steps = st.lists(st.tuples(st.booleans(), changes_of_a_side, fates), max_size=30)


@given(steps, st.integers(1, 12))
def test_book_equals_the_servers_or_needs_a_snapshot(
    changes: list[tuple[bool, list[tuple[int, str]], str]], max_levels: int
) -> None:
    server, client = OrderBook(max_levels), Book("A")
    assert client.apply(message(0, [], [], server.checksum(), kind="snapshot"))
    waiting: list[tuple[Any, Any]] = []
    prev = 0
    for seq, (is_bid, levels, fate) in enumerate(changes, start=1):
        # Several spellings of one price, and sides that can meet.
        named = {
            price: (f"{price}.{'0' * ((price + seq) % 3 + 1)}", quantity)
            for price, quantity in levels
        }
        side = list(named.values())
        try:
            change = server.update(side, []) if is_bid else server.update([], side)
            waiting.append((change.bids, change.asks))
        except RequestError:
            waiting.append(([], []))
        if fate == "merged with the next":
            continue
        bids, asks = merge_changes(waiting)
        update = message(seq, list(bids), list(asks), server.checksum(), prev=prev)
        prev = seq
        waiting.clear()
        if fate == "lost":
            continue
        in_step = client.apply(update)
        if fate == "sent twice" and in_step:
            assert client.apply(update)
        assert in_step == (client.position == Position(epoch="e1", seq=seq))
        if not in_step:
            whole = server.snapshot()
            snapshot = message(
                seq, list(whole.bids), list(whole.asks), whole.checksum, kind="snapshot"
            )
            assert client.apply(snapshot)
        assert client.checksum() == server.checksum()
        assert client.bids == [(Decimal(p), Decimal(q)) for p, q in server.bids]
        assert client.asks == [(Decimal(p), Decimal(q)) for p, q in server.asks]
