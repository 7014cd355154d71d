"""The simulated market: the same for a seed, sensible, and at its pace."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal

import pytest

from client_sdk.contract import PriceData
from server.feeds import SimulatedFeed
from server.feeds.walk import RandomWalk
from server.ports import Position
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
