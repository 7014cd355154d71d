"""The market of one symbol: its book, its prices and its trades fit each other at any moment."""

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

# The two that people know best, a made-up one, and one so small that a level is a tick apart.
MARKETS = [*listings(5, seed=1), Listing("PENNY", 30_000, 8)]
EACH_MARKET = pytest.mark.parametrize("listing", MARKETS, ids=lambda listing: listing.symbol)


class ModelBook:
    """A book as a client keeps it; looks at itself after every single change."""

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
    """The changes of a book message, one side after the other."""
    return [
        (side, level) for side in sides for level in cast("list[list[str]]", publication.data[side])
    ]


def publications(listing: Listing, steps: int, *, seed: int = 1) -> Iterator[Publication]:
    """What a market has to say in so many steps."""
    walk = RandomWalk(listing, seed=seed)
    return itertools.chain.from_iterable(walk.step(1_800_000_000_000 + i) for i in range(steps))


def of_stream(stream: str, all_publications: Iterator[Publication]) -> Iterator[Publication]:
    """Only one stream of it."""
    return (each for each in all_publications if each.topic.startswith(f"{stream}:"))


@EACH_MARKET
def test_book_prices_and_trades_fit_each_other_at_every_moment(listing: Listing) -> None:
    book, last, volume = ModelBook(), Decimal(0), Decimal(0)
    for said in publications(listing, 4000):
        if said.topic == f"ORDERBOOK:{listing.symbol}":
            book.apply(changes_of(said, "bids", "asks"))
            assert {len(levels) for levels in book.sides.values()} == {DEPTH}
        elif said.topic == f"TRADES:{listing.symbol}":
            [trade] = cast("list[Mapping[str, str]]", said.data["trades"])
            side = "asks" if trade["side"] == "buy" else "bids"
            last = Decimal(trade["price"])
            assert last == book.best(side)
            assert 0 < Decimal(trade["qty"]) <= book.sides[side][last]
            volume += Decimal(trade["qty"])
        else:
            assert said.topic == f"PRICE:{listing.symbol}"
            price = {name: Decimal(cast("str", text)) for name, text in said.data.items()}
            assert price == {
                "bid": book.best("bids"),
                "ask": book.best("asks"),
                "last": last,
                "volume": volume,
            }


@pytest.mark.parametrize("turn", ["asks first", "worst first", "asks first, worst first"])
def test_no_order_of_applying_an_update_crosses_the_book(turn: str) -> None:
    book = ModelBook()
    for said in of_stream("ORDERBOOK", publications(MARKETS[0], 3000)):
        changes = changes_of(said, "bids", "asks")
        if "worst first" in turn:
            changes.reverse()
        if "asks first" in turn:
            changes.sort(key=lambda change: change[0])
        book.apply(changes)


@EACH_MARKET
def test_levels_and_changes_come_best_first_and_once(listing: Listing) -> None:
    for said in of_stream("ORDERBOOK", publications(listing, 1000)):
        for side in ("bids", "asks"):
            prices = [Decimal(price) for _, (price, _) in changes_of(said, side)]
            assert prices == sorted(set(prices), reverse=side == "bids")


def test_a_snapshot_is_the_whole_book_and_an_update_a_few_changes() -> None:
    first, *others = of_stream("ORDERBOOK", publications(MARKETS[0], 1000))
    assert first.kind == "snapshot"
    assert len(changes_of(first, "bids")) == len(changes_of(first, "asks")) == 25
    sizes = [len(changes_of(each, "bids", "asks")) for each in others]
    assert {each.kind for each in others} == {"update"}
    assert min(sizes) >= 1
    assert sum(sizes) / len(sizes) < 8


def test_every_third_step_is_a_trade_with_an_id_and_a_time_of_its_own() -> None:
    walk = RandomWalk(MARKETS[0], seed=1)
    for number in range(30):
        trades = list(of_stream("TRADES", iter(walk.step(5000 + number))))
        assert len(trades) == (number % 3 == 0)
        for said in trades:
            [trade] = cast("list[Mapping[str, object]]", said.data["trades"])
            assert trade["id"] == str(number // 3 + 1)
            assert trade["ts"] == 5000 + number


def test_what_a_trade_took_is_gone_from_the_book() -> None:
    walk, book, partly = RandomWalk(MARKETS[0], seed=1), ModelBook(), Counter[bool]()
    for said in walk.step(0):
        if said.kind == "snapshot":
            book.apply(changes_of(said, "bids", "asks"))
    for _ in range(3000):
        traded: tuple[str, Decimal, Decimal] | None = None
        for said in walk.step(0):
            if said.topic.startswith("TRADES"):
                [trade] = cast("list[Mapping[str, str]]", said.data["trades"])
                side = "asks" if trade["side"] == "buy" else "bids"
                traded = side, Decimal(trade["price"]), Decimal(trade["qty"])
            elif said.topic.startswith("ORDERBOOK") and traded is not None:
                side, price, quantity = traded
                stood = book.sides[side][price]
                now = {Decimal(at): Decimal(left) for _, (at, left) in changes_of(said, side)}
                assert now[price] in (0, stood - quantity)
                partly[now[price] > 0] += 1
            if said.topic.startswith("ORDERBOOK"):
                for side, (at, left) in changes_of(said, "bids", "asks"):
                    book.sides[side][Decimal(at)] = Decimal(left)
    assert partly[True] > 100
    assert partly[False] > 100


@EACH_MARKET
def test_a_price_moves_both_ways(listing: Listing) -> None:
    prices = [
        Decimal(cast("str", said.data["bid"]))
        for said in of_stream("PRICE", publications(listing, 500))
    ]
    moves = Counter(now > before for before, now in itertools.pairwise(prices) if now != before)
    assert min(moves[True], moves[False]) > 100


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_price_neither_falls_to_nothing_nor_runs_away(seed: int) -> None:
    # Each of its few ticks is a great part of it: by luck alone it would soon be gone.
    cheap = Listing("CHEAP", 200, 2)
    for said in of_stream("PRICE", publications(cheap, 10_000, seed=seed)):
        assert 1 < Decimal(cast("str", said.data["bid"])) < 4


def test_the_spread_stays_small() -> None:
    for said in of_stream("PRICE", publications(MARKETS[0], 5000)):
        bid, ask = (Decimal(cast("str", said.data[name])) for name in ("bid", "ask"))
        assert (ask - bid) / bid < Decimal("0.00021")


def test_no_level_is_out_of_reach_of_its_neighbour() -> None:
    asks = Ladder(10_000, direction=+1, max_gap=7, draw=random.Random(1).random)
    asks.approach(9_000)
    asks.drop(3)
    asks.approach(8_950)
    ticks = [level for level, _ in asks.levels()]
    assert len(ticks) == DEPTH
    assert all(1 <= worse - better <= 7 for better, worse in itertools.pairwise(ticks))
    assert 8_950 < asks.best <= 8_950 + 8


def test_two_symbols_and_two_seeds_do_not_move_as_one() -> None:
    one, other = (Listing(symbol, 100_000, 2) for symbol in ("A", "B"))
    moves = [
        [said.data for said in of_stream("PRICE", publications(listing, 20, seed=seed))]
        for listing, seed in ((one, 1), (other, 1), (one, 2))
    ]
    assert moves[0] != moves[1]
    assert moves[0] != moves[2]


def test_many_symbols_have_many_names() -> None:
    names = [listing.symbol for listing in listings(2000, seed=1)]
    assert len(set(names)) == 2000
    assert names[999] == "SYM1000USDT"


def test_made_up_symbols_begin_elsewhere_for_another_seed() -> None:
    assert listings(8, seed=1) == listings(8, seed=1)
    assert listings(8, seed=1)[:4] == listings(8, seed=2)[:4]
    assert listings(8, seed=1)[4:] != listings(8, seed=2)[4:]
    # However many there are, each is what it would be among fewer.
    assert listings(50, seed=1)[:8] == listings(8, seed=1)
