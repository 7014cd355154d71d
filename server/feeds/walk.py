"""Simulates one symbol: a random walk of its order book, prices and trades."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from client_sdk.contract import Stream
from server.feeds.ladder import Ladder
from server.feeds.listing import Listing, quantity

_STEPS_PER_TRADE = 3
# The maximum gap between two levels, as a share of the price.
_MAX_GAP_RATIO = 1 / 20_000
_MAX_DROPPED = 2


@dataclass(frozen=True, slots=True)
class Publication:
    """One message of the simulated market."""

    topic: str
    kind: str
    data: dict[str, object]


class RandomWalk:
    """A random walk that depends on the seed and the symbol only."""

    def __init__(self, listing: Listing, *, seed: int) -> None:
        # One random stream per symbol: adding a symbol does not change the others.
        self._draw = draw = random.Random(f"{seed}/{listing.symbol}").random
        self.listing = listing
        reach = max(1, int(listing.start_ticks * _MAX_GAP_RATIO))
        bid = listing.start_ticks
        self._bids = Ladder(bid, direction=-1, max_gap=reach, draw=draw)
        self._asks = Ladder(bid + 1 + int(draw() * reach), direction=+1, max_gap=reach, draw=draw)
        self._steps = self._trades = self._volume = self._last = 0
        self._has_sent_snapshot = False
        self._price_topic, self._book_topic, self._trades_topic = (
            f"{stream.value}:{listing.symbol}"
            for stream in (Stream.PRICE, Stream.ORDERBOOK, Stream.TRADES)
        )

    def step(self, ts_ms: int) -> list[Publication]:
        """Make one step; return its messages in order of publication.

        A trade comes before the book update that it causes, and the price last. The first step
        begins with a book snapshot.
        """
        publications = []
        if not self._has_sent_snapshot:
            publications.append(self._book("snapshot", self._bids.levels(), self._asks.levels()))
            self._has_sent_snapshot = True
        # Mean reversion: the price neither falls to zero nor grows without bound.
        rising = self._draw() * 2 * self.listing.start_ticks > self._bids.best
        traded, following = (self._asks, self._bids) if rising else (self._bids, self._asks)
        touch = traded.best
        if self._steps % _STEPS_PER_TRADE == 0:
            publications.append(self._trade(traded, "buy" if rising else "sell", ts_ms))
        traded.drop(int(self._draw() * (_MAX_DROPPED + 1)))
        # The other side stays short of the previous best price, so that a client can apply
        # the changes in any order without a crossed book.
        following.approach(touch)
        following.change_random_level()
        self._steps += 1
        publications.append(
            self._book("update", self._bids.pop_changes(), self._asks.pop_changes())
        )
        publications.append(self._price())
        return publications

    def request_snapshot(self) -> None:
        """Begin the next step with a book snapshot: a message was not published."""
        self._has_sent_snapshot = False

    def _trade(self, side: Ladder, aggressor: str, ts_ms: int) -> Publication:
        lots = 1 + int(self._draw() * side.best_lots)
        self._trades += 1
        self._volume += lots
        self._last = side.best
        side.take(lots)
        trade = {
            "id": str(self._trades),
            "price": self.listing.price(self._last),
            "qty": quantity(lots),
            "side": aggressor,
            "ts": ts_ms,
        }
        return Publication(self._trades_topic, "update", {"trades": [trade]})

    def _book(
        self, kind: str, bids: Iterable[tuple[int, int]], asks: Iterable[tuple[int, int]]
    ) -> Publication:
        data: dict[str, object] = {
            "bids": self._format_levels(bids),
            "asks": self._format_levels(asks),
        }
        return Publication(self._book_topic, kind, data)

    def _format_levels(self, levels: Iterable[tuple[int, int]]) -> list[list[str]]:
        price = self.listing.price
        return [[price(ticks), quantity(lots) if lots else "0"] for ticks, lots in levels]

    def _price(self) -> Publication:
        price = self.listing.price
        data: dict[str, object] = {
            "bid": price(self._bids.best),
            "ask": price(self._asks.best),
            "last": price(self._last),
            "volume": quantity(self._volume),
        }
        return Publication(self._price_topic, "update", data)
