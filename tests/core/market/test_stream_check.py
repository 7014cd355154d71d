"""Tests the check of a topic's messages: gaps, duplicates, reorders and checksums."""

from typing import Any

import pytest

from server.core.market.book import OrderBook
from server.core.market.stream_check import Fault, StreamCheck


def reply(seq: int, snapshot: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"epoch": "e1", "seq": seq, "snapshot": snapshot}


def price(seq: int, prev: int | None = None, epoch: str = "e1", kind: str = "update") -> Any:
    before = seq - 1 if prev is None else prev
    return {"type": kind, "epoch": epoch, "seq": seq, "prev": before, "ts": 1, "data": {}}


@pytest.mark.parametrize(
    ("messages", "faults"),
    [
        ([price(6), price(7), price(10, prev=7)], []),
        ([price(6), price(8)], [Fault.GAP]),
        ([price(6), price(6), price(7)], [Fault.DUPLICATE]),
        ([price(6), price(7), price(6), price(8)], [Fault.REORDER]),
        ([price(8), price(9), price(10)], [Fault.GAP]),
        ([price(6), price(1, epoch="e2"), price(2, epoch="e2")], [Fault.GAP]),
        ([price(6), price(6, kind="heartbeat", prev=6), price(7)], []),
        ([price(7, kind="heartbeat", prev=7)], [Fault.GAP]),
        ([price(6), price(7), price(6, kind="heartbeat", prev=6)], [Fault.REORDER]),
    ],
)
def test_only_messages_that_do_not_follow_are_faults(
    messages: list[dict[str, Any]], faults: list[Fault]
) -> None:
    check = StreamCheck(reply(5), is_book=False)
    found = [check.check("price", message) for message in messages]
    assert [each for each in found if each is not None] == faults


def test_announced_reset_is_no_gap() -> None:
    check = StreamCheck(reply(5), is_book=False)
    assert check.check("status", {"state": "RESYNC"}) is None
    assert check.check("price", price(1, epoch="e2")) is None
    assert check.check("price", price(3, epoch="e2")) is Fault.GAP


class PublishedBook:
    """A book, and the messages of its changes."""

    def __init__(self) -> None:
        self._book = OrderBook(100)
        self._seq = 0

    def message(self, kind: str, bids: list[tuple[str, str]]) -> dict[str, Any]:
        change = self._book.apply(kind, bids, [])
        self._seq += 1
        return {**price(self._seq, kind=kind), "data": change.body()}


def test_wrong_checksum_is_found_and_a_snapshot_ends_it() -> None:
    book = PublishedBook()
    snapshot = book.message("snapshot", [("1", "1"), ("2", "2")])
    check = StreamCheck(reply(1, snapshot), is_book=True)
    assert check.snapshot_fault is None
    assert check.check("book", book.message("update", [("1", "0")])) is None
    wrong = book.message("update", [("3", "1")])
    wrong["data"]["checksum"] += 1
    assert check.check("book", wrong) is Fault.CHECKSUM
    assert check.check("book", book.message("update", [("4", "1")])) is None, "counted once"
    assert check.check("book", book.message("snapshot", [("1", "1")])) is None
    missed = book.message("update", [("5", "1")])
    assert missed["seq"] == 6
    after_gap = book.message("update", [("6", "1")])
    assert check.check("book", after_gap) is Fault.GAP
    assert check.check("book", book.message("update", [("7", "1")])) is None


def test_wrong_snapshot_of_a_reply_is_found() -> None:
    snapshot = PublishedBook().message("snapshot", [("1", "1")])
    snapshot["data"]["checksum"] += 1
    assert StreamCheck(reply(1, snapshot), is_book=True).snapshot_fault is Fault.CHECKSUM


def test_empty_book_is_checked_from_its_first_change() -> None:
    book = PublishedBook()
    check = StreamCheck(reply(0), is_book=True)
    first = book.message("update", [("1", "1")])
    first["data"]["checksum"] += 1
    assert check.check("book", first) is Fault.CHECKSUM


def test_snapshot_that_follows_a_large_reply_is_no_duplicate() -> None:
    book = PublishedBook()
    snapshot = book.message("snapshot", [("1", "1")])
    check = StreamCheck(reply(1), is_book=True)
    assert check.check("book", {**snapshot, "prev": 1}) is None
    assert check.check("book", book.message("update", [("2", "1")])) is None
