"""Checks what a client is sent of one topic: its order, its gaps, and the book's checksum."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from client_sdk.contract import FeedState
from server.core.errors import RequestError
from server.core.market.book import OrderBook

_ANY_DEPTH = 1 << 30


class Fault(StrEnum):
    """What is wrong with a message."""

    GAP = "gap"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    CHECKSUM = "checksum"


class StreamCheck:
    """The position of one subscription, and its book; a fault is counted once."""

    def __init__(self, reply: Mapping[str, Any], *, is_book: bool) -> None:
        self._epoch: str = reply["epoch"]
        self._seq: int = reply["seq"]
        self._is_book = is_book
        # None while the book is unknown: before a snapshot, and after a fault.
        self._book: OrderBook | None = None
        # The next message need not follow, because a status has announced it.
        self._resyncs = False
        self.snapshot_fault: Fault | None = None
        if is_book and self._seq == 0:
            self._book = OrderBook(_ANY_DEPTH)
        elif is_book and reply["snapshot"] is not None:
            self.snapshot_fault = self._apply(reply["snapshot"])

    def check(self, event: str, message: Mapping[str, Any]) -> Fault | None:
        """Check the next event of the topic; None if it is right."""
        if event == "status":
            self._resyncs = self._resyncs or message["state"] == FeedState.RESYNC
            return None
        if message["type"] == "heartbeat":
            return None if self._is_next(message, message["seq"]) else self._find_fault(message)
        fault = None
        is_refresh = message["type"] == "snapshot" and self._is_next(message, message["seq"])
        if not (self._is_next(message, message["prev"]) or self._resyncs or is_refresh):
            fault = self._find_fault(message)
        if fault in (Fault.DUPLICATE, Fault.REORDER):
            # It is not applied: the next one must follow what came before it.
            return fault
        if fault is not None or self._resyncs:
            self._book = None
        self._resyncs = False
        self._epoch, self._seq = message["epoch"], message["seq"]
        return fault or (self._apply(message) if self._is_book else None)

    def _is_next(self, message: Mapping[str, Any], prev: int) -> bool:
        return message["epoch"] == self._epoch and prev == self._seq

    def _find_fault(self, message: Mapping[str, Any]) -> Fault:
        if message["epoch"] != self._epoch or message["seq"] > self._seq:
            return Fault.GAP
        return Fault.DUPLICATE if message["seq"] == self._seq else Fault.REORDER

    def _apply(self, message: Mapping[str, Any]) -> Fault | None:
        data = message["data"]
        if message["type"] == "snapshot":
            self._book = OrderBook(_ANY_DEPTH)
        if self._book is None:
            return None
        try:
            self._book.apply(message["type"], data["bids"], data["asks"], data["checksum"])
        except RequestError:
            self._book = None
            return Fault.CHECKSUM
        return None
