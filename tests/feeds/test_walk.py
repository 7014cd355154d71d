"""Tests that book, prices and trades of a simulated symbol are consistent."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import cast

import pytest

from server.feeds.ladder import DEPTH, Ladder
from server.feeds.listing import Listing, listings
from server.feeds.walk import Publication, RandomWalk

# Four well-known symbols, a generated one, and one with gaps of one tick.
MARKETS = [*listings(5, seed=1), Listing("PENNY", 30_000, 8)]
EACH_MARKET = pytest.mark.parametrize("listing", MARKETS, ids=lambda listing: listing.symbol)


class ModelBook:
    """A client's book that checks itself after every change."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[Decimal, Decimal]] = {"bids": {}, "asks": {}}

    def best(self, side: str) -> Decimal:
        return max(self.sides["bids"]) if side == "bids" else min(self.sides["asks"])

    def apply(self, changes: Sequence[tuple[str, Sequence[str]]]) -> None:
        for side, (price, quantity) in changes:
            if quantity == "0":
                del self.sides[side][Decimal(price)]
            else:
                assert Decimal(quantity) > 0
                self.sides[side][Decimal(price)] = Decimal(quantity)
            if all(self.sides.values()):
                assert self.best("bids") < self.best("asks")


def changes_of(publication: Publication, *sides: str) -> list[tuple[str, list[str]]]:
    """The changes of a book message, side by side in this order."""
    return [
        (side, level) for side in sides for level in cast("list[list[str]]", publication.data[side])
    ]


def publications(listing: Listing, steps: int, *, seed: int = 1) -> Iterator[Publication]:
    """The messages of a market's first steps."""
    walk = RandomWalk(listing, seed=seed)
    return itertools.chain.from_iterable(walk.step(1_800_000_000_000 + i) for i in range(steps))


def of_stream(stream: str, all_publications: Iterator[Publication]) -> Iterator[Publication]:
    """The messages of one stream."""
    return (each for each in all_publications if each.topic.startswith(f"{stream}:"))


@EACH_MARKET
def test_book_prices_and_trades_are_always_consistent(listing: Listing) -> None:
    book, last, volume = ModelBook(), Decimal(0), Decimal(0)
    for publication in publications(listing, 4000):
        if publication.topic == f"ORDERBOOK:{listing.symbol}":
            book.apply(changes_of(publication, "bids", "asks"))
            assert {len(levels) for levels in book.sides.values()} == {DEPTH}
        elif publication.topic == f"TRADES:{listing.symbol}":
            [trade] = cast("list[Mapping[str, str]]", publication.data["trades"])
            side = "asks" if trade["side"] == "buy" else "bids"
            last = Decimal(trade["price"])
            assert last == book.best(side)
            assert 0 < Decimal(trade["qty"]) <= book.sides[side][last]
            volume += Decimal(trade["qty"])
        else:
            assert publication.topic == f"PRICE:{listing.symbol}"
            price = {name: Decimal(cast("str", text)) for name, text in publication.data.items()}
            assert price == {
                "bid": book.best("bids"),
                "ask": book.best("asks"),
                "last": last,
                "volume": volume,
            }


@pytest.mark.parametrize("turn", ["asks first", "worst first", "asks first, worst first"])
def test_book_is_never_crossed_in_any_order_of_changes(turn: str) -> None:
    book = ModelBook()
    for publication in of_stream("ORDERBOOK", publications(MARKETS[0], 3000)):
        changes = changes_of(publication, "bids", "asks")
        if "worst first" in turn:
            changes.reverse()
        if "asks first" in turn:
            changes.sort(key=lambda change: change[0])
        book.apply(changes)


@EACH_MARKET
def test_levels_are_unique_and_sorted_best_first(listing: Listing) -> None:
    for publication in of_stream("ORDERBOOK", publications(listing, 1000)):
        for side in ("bids", "asks"):
            prices = [Decimal(price) for _, (price, _) in changes_of(publication, side)]
            assert prices == sorted(set(prices), reverse=side == "bids")


def test_first_book_message_is_a_snapshot() -> None:
    first, *others = of_stream("ORDERBOOK", publications(MARKETS[0], 1000))
    assert first.kind == "snapshot"
    assert len(changes_of(first, "bids")) == len(changes_of(first, "asks")) == 25
    sizes = [len(changes_of(each, "bids", "asks")) for each in others]
    assert {each.kind for each in others} == {"update"}
    assert min(sizes) >= 1
    assert sum(sizes) / len(sizes) < 8


def test_every_third_step_is_a_trade_with_its_own_id() -> None:
    walk = RandomWalk(MARKETS[0], seed=1)
    for number in range(30):
        trades = list(of_stream("TRADES", iter(walk.step(5000 + number))))
        assert len(trades) == (number % 3 == 0)
        for publication in trades:
            [trade] = cast("list[Mapping[str, object]]", publication.data["trades"])
            assert trade["id"] == str(number // 3 + 1)
            assert trade["ts"] == 5000 + number


def test_trade_removes_its_quantity_from_the_book() -> None:
    walk, book, partly = RandomWalk(MARKETS[0], seed=1), ModelBook(), Counter[bool]()
    for publication in walk.step(0):
        if publication.kind == "snapshot":
            book.apply(changes_of(publication, "bids", "asks"))
    for _ in range(3000):
        traded: tuple[str, Decimal, Decimal] | None = None
        for publication in walk.step(0):
            if publication.topic.startswith("TRADES"):
                [trade] = cast("list[Mapping[str, str]]", publication.data["trades"])
                side = "asks" if trade["side"] == "buy" else "bids"
                traded = side, Decimal(trade["price"]), Decimal(trade["qty"])
            elif publication.topic.startswith("ORDERBOOK") and traded is not None:
                side, price, quantity = traded
                before_lots = book.sides[side][price]
                now = {
                    Decimal(at): Decimal(left) for _, (at, left) in changes_of(publication, side)
                }
                assert now[price] in (0, before_lots - quantity)
                partly[now[price] > 0] += 1
            if publication.topic.startswith("ORDERBOOK"):
                for side, (at, left) in changes_of(publication, "bids", "asks"):
                    book.sides[side][Decimal(at)] = Decimal(left)
    assert partly[True] > 100
    assert partly[False] > 100


@EACH_MARKET
def test_price_moves_both_ways(listing: Listing) -> None:
    prices = [
        Decimal(cast("str", publication.data["bid"]))
        for publication in of_stream("PRICE", publications(listing, 500))
    ]
    moves = Counter(now > before for before, now in itertools.pairwise(prices) if now != before)
    assert min(moves[True], moves[False]) > 100


@pytest.mark.parametrize("seed", range(1, 6))
def test_price_stays_near_its_start(seed: int) -> None:
    # A tick is a large part of this price: a pure random walk would soon reach zero.
    cheap = Listing("CHEAP", 200, 2)
    for publication in of_stream("PRICE", publications(cheap, 10_000, seed=seed)):
        assert 1 < Decimal(cast("str", publication.data["bid"])) < 4


def test_spread_stays_small() -> None:
    for publication in of_stream("PRICE", publications(MARKETS[0], 5000)):
        bid, ask = (Decimal(cast("str", publication.data[name])) for name in ("bid", "ask"))
        assert (ask - bid) / bid < Decimal("0.00021")


def test_gap_between_levels_is_bounded() -> None:
    asks = Ladder(10_000, direction=+1, max_gap=7, draw=random.Random(1).random)
    asks.approach(9_000)
    asks.drop(3)
    asks.approach(8_950)
    ticks = [level for level, _ in asks.levels()]
    assert len(ticks) == DEPTH
    assert all(1 <= worse - better <= 7 for better, worse in itertools.pairwise(ticks))
    assert 8_950 < asks.best <= 8_950 + 8


def test_symbols_and_seeds_walk_differently() -> None:
    one, other = (Listing(symbol, 100_000, 2) for symbol in ("A", "B"))
    moves = [
        [
            publication.data
            for publication in of_stream("PRICE", publications(listing, 20, seed=seed))
        ]
        for listing, seed in ((one, 1), (other, 1), (one, 2))
    ]
    assert moves[0] != moves[1]
    assert moves[0] != moves[2]


def test_generated_symbols_are_unique() -> None:
    names = [listing.symbol for listing in listings(2000, seed=1)]
    assert len(set(names)) == 2000
    assert names[999] == "SYM1000USDT"


def test_seed_changes_the_generated_symbols() -> None:
    assert listings(8, seed=1) == listings(8, seed=1)
    assert listings(8, seed=1)[:4] == listings(8, seed=2)[:4]
    assert listings(8, seed=1)[4:] != listings(8, seed=2)[4:]
    # A symbol does not depend on the number of symbols.
    assert listings(50, seed=1)[:8] == listings(8, seed=1)
