"""The simulated market: the same for a seed, sensible, and at its pace."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal

import pytest

from client_sdk.contract import PriceData
from server.feeds import SimulatedFeed
from server.feeds.walk import RandomWalk
from server.core.entries import Position
from tests.kit.clock import ManualClock


class Tape:
    """Writes down what a feed publishes, and ends it after so many."""

    def __init__(self, length: int) -> None:
        self.lines: list[tuple[str, Mapping[str, object]]] = []
        self._length = length

    async def publish(self, topic: str, data: Mapping[str, object]) -> Position:
        if len(self.lines) == self._length:
            raise asyncio.CancelledError
        self.lines.append((topic, data))
        return Position("e", len(self.lines))


async def play(length: int, *, seed: int = 1, rate: float = 10.0) -> tuple[Tape, list[float]]:
    """Run a feed; what it published, and how long it slept each time."""
    clock, sleeps, tape = ManualClock(), list[float](), Tape(length)

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        clock.advance(seconds)

    with pytest.raises(asyncio.CancelledError):
        await SimulatedFeed(clock, seed=seed, rate_per_second=rate, sleep=sleep).run(tape)
    return tape, sleeps


async def symbols_of(symbols: Mapping[str, tuple[str, str]], length: int) -> Tape:
    """What a feed of these symbols publishes."""
    clock, tape = ManualClock(), Tape(length)

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    with pytest.raises(asyncio.CancelledError):
        await SimulatedFeed(clock, symbols=symbols, sleep=sleep).run(tape)
    return tape


async def test_the_same_seed_is_the_same_market_and_another_is_not() -> None:
    one, _ = await play(50)
    again, _ = await play(50)
    other, _ = await play(50, seed=2)
    assert one.lines == again.lines
    assert one.lines != other.lines


async def test_prices_are_sensible_and_exact() -> None:
    tape, _ = await play(500)
    for _topic, data in tape.lines:
        price = PriceData.model_validate(data)
        assert 0 < Decimal(price.bid) < Decimal(price.ask)
        assert price.last in (price.bid, price.ask)
        assert "E" not in price.last
    assert {topic for topic, _ in tape.lines} == {
        "PRICE:BTCUSDT",
        "PRICE:ETHUSDT",
        "PRICE:SOLUSDT",
        "PRICE:EURUSD",
        "PRICE:AAPL",
    }


async def test_the_pace_is_even() -> None:
    _, sleeps = await play(21, rate=10)
    assert sum(sleeps) == pytest.approx(2.1)
    assert all(each == pytest.approx(0.1) for each in sleeps)


async def test_after_a_stall_the_feed_does_not_burst() -> None:
    clock, tape, slept = ManualClock(), Tape(3), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds if slept[1:] else 60)

    with pytest.raises(asyncio.CancelledError):
        await SimulatedFeed(clock, rate_per_second=10, sleep=sleep).run(tape)
    assert slept[1] == 0
    assert slept[2] == pytest.approx(0.1)


def test_a_walk_never_falls_to_nothing() -> None:
    walk = RandomWalk("PENNY", seed=3, start=Decimal("0.12"), tick=Decimal("0.01"))
    assert all(Decimal(str(walk.step()["bid"])) > 0 for _ in range(5000))


def test_a_tiny_tick_is_written_without_an_exponent() -> None:
    walk = RandomWalk("DUST", seed=3, start=Decimal("0.00000100"), tick=Decimal("0.00000001"))
    for _ in range(50):
        assert all("E" not in str(value) for value in walk.step().values())


async def test_a_market_may_have_symbols_of_its_own_each_walking_as_it_would_alone() -> None:
    alone = await symbols_of({"GOLD": ("2400.0", "0.1")}, 3)
    beside = await symbols_of({"OIL": ("70.00", "0.01"), "GOLD": ("2400.0", "0.1")}, 6)
    assert [topic for topic, _ in beside.lines] == ["PRICE:OIL", "PRICE:GOLD"] * 3
    assert [line for line in beside.lines if line[0] == "PRICE:GOLD"] == alone.lines


@pytest.mark.parametrize(("symbols", "rate"), [({}, 1.0), ({"A": ("1", "0.1")}, 0.0)])
def test_a_market_that_could_not_move_is_refused(
    symbols: dict[str, tuple[str, str]], rate: float
) -> None:
    with pytest.raises(ValueError, match="needs"):
        SimulatedFeed(ManualClock(), symbols=symbols, rate_per_second=rate)


def test_two_symbols_do_not_move_as_one() -> None:
    one, other = (
        RandomWalk(symbol, seed=1, start=Decimal(100), tick=Decimal("0.01")) for symbol in "AB"
    )
    assert [one.step() for _ in range(20)] != [other.step() for _ in range(20)]
