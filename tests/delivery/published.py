"""Publishes for the model tests, and records the state of each topic."""

from collections.abc import Callable, Sequence
from typing import Any

from server.core.errors import RequestError
from tests.kit.rigs.market import MarketRig

Side = dict[str, str]


class PublishedLog:
    """Publishes numbered messages, and keeps the expected final state of each topic."""

    def __init__(self, rig: MarketRig, run: Callable[[Any], Any], topics: Sequence[str]) -> None:
        self._rig = rig
        self._run = run
        self.number = 0
        self.numbers: dict[str, list[int | None]] = {topic: [] for topic in topics}
        self.times: dict[str, list[int]] = {topic: [] for topic in topics}
        self.books: dict[str, tuple[Side, Side]] = {}

    def publish(self, topic: str, count: int, *, flush_each: bool) -> None:
        """Publish `count` messages; no-op for books (see `change_book`)."""
        stream, _, symbol = topic.partition(":")
        for _ in range(count):
            self.number += 1
            if stream == "PRICE":
                position = self._run(self._rig.price(symbol, self.number))
            elif stream == "TRADES":
                position = self._run(self._rig.trade(symbol, self.number))
            elif stream == "USER_DATA":
                data = {"number": self.number, "padding": "x" * 200}
                position = self._run(self._rig.publishing.publish(topic, data, user="ann"))
            else:
                return
            self._note(topic, self.number)
            assert position.seq == len(self.numbers[topic])
            if flush_each:
                self._rig.run_scheduled()

    def change_book(
        self, symbol: str, bids: list[tuple[int, int]], asks: list[tuple[int, int]], kind: int
    ) -> bool:
        """Update a book, or replace it if `kind` is 0; False if the server refuses."""
        new_bids, new_asks = (
            [(f"{price}.0", str(quantity)) for price, quantity in dict(side).items()]
            for side in (bids, asks)
        )
        try:
            self._run(self._rig.book(symbol, new_bids, new_asks, "update" if kind else "snapshot"))
        except RequestError:
            return False
        topic = f"ORDERBOOK:{symbol}"
        book = self.book(topic) if kind else ({}, {})
        for side, changed in zip(book, (new_bids, new_asks), strict=True):
            side.update(changed)
            for price in [price for price, quantity in side.items() if quantity == "0"]:
                del side[price]
        self.books[topic] = book
        self._note(topic, None)
        return True

    def book(self, topic: str) -> tuple[Side, Side]:
        """The expected bids and asks of a book."""
        return self.books.get(topic, ({}, {}))

    def now_ms(self) -> int:
        """The rig's wall clock time."""
        return int(self._rig.clock.time() * 1000)

    def settle(self, receive: Callable[[], None]) -> None:
        """Let all pending writes go out and be received."""
        for _ in range(3):
            self._rig.settle()
            receive()
            self._rig.pass_time(1.0)
            # Held frames go out in later turns.
            self._rig.settle()
            receive()

    def _note(self, topic: str, number: int | None) -> None:
        self.numbers[topic].append(number)
        self.times[topic].append(self.now_ms())
