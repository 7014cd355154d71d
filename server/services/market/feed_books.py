"""Finds what has changed between two whole books of a feed."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from server.core.market.book import REMOVED

_Side = dict[Decimal, tuple[str, str]]


class FeedBooks:
    """The last whole book of each topic, as it was published."""

    def __init__(self) -> None:
        self._books: dict[str, tuple[_Side, _Side]] = {}

    def __len__(self) -> int:
        return len(self._books)

    def change(
        self, topic: str, bids: Iterable[tuple[str, str]], asks: Iterable[tuple[str, str]]
    ) -> tuple[str, Mapping[str, object]] | None:
        """The kind and the data to publish for a whole book; None if nothing has changed.

        The book counts as published from now on: you must call `forget` if it was not.
        """
        now = (_side(bids), _side(asks))
        before = self._books.get(topic)
        self._books[topic] = now
        if before is None:
            return "snapshot", {"bids": _levels(now[0]), "asks": _levels(now[1])}
        data = {"bids": _difference(before[0], now[0]), "asks": _difference(before[1], now[1])}
        return ("update", data) if data["bids"] or data["asks"] else None

    def whole(self, topic: str) -> Mapping[str, object]:
        """The last book of a topic, which must have one."""
        bids, asks = self._books[topic]
        return {"bids": _levels(bids), "asks": _levels(asks)}

    def forget(self, topic: str) -> None:
        """Publish this topic's next book as a snapshot."""
        self._books.pop(topic, None)


def _side(levels: Iterable[tuple[str, str]]) -> _Side:
    """The levels by price; one of quantity 0 is none."""
    return {Decimal(price): (price, quantity) for price, quantity in levels if quantity.strip("0.")}


def _levels(side: _Side) -> list[tuple[str, str]]:
    return list(side.values())


def _difference(before: _Side, now: _Side) -> list[tuple[str, str]]:
    changed = [level for key, level in now.items() if before.get(key) != level]
    return [(before[key][0], REMOVED) for key in before if key not in now] + changed
