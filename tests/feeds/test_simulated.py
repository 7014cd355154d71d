"""Tests the simulated feed."""

import asyncio
import math
import re
from collections.abc import Mapping
from typing import Any, cast

import pytest

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError
from server.core.log.entries import Position
from server.feeds import FeedError, SimulatedFeed
from server.ports import FeedOptions
from tests.feeds.tape import FakeSleep, PublishRecorder
from tests.kit.clock import ManualClock

PLAIN_DECIMAL = re.compile(r"[0-9]+\.[0-9]+")


async def play(
    length: int, *, seed: int = 1, rate: float = 10.0, symbols: int = 4
) -> tuple[PublishRecorder, list[float]]:
    """Run a feed; return what it published and its sleeps."""
    clock, recorder = ManualClock(), PublishRecorder(length)
    sleeper = FakeSleep(clock)
    options = FeedOptions(clock, seed=seed, rate=rate, symbols=symbols)
    with pytest.raises(asyncio.CancelledError):
        await SimulatedFeed(options, sleep=sleeper.sleep).run(recorder)
    return recorder, sleeper.sleeps


async def test_seed_determines_the_market() -> None:
    one, _ = await play(200)
    again, _ = await play(200)
    other, _ = await play(200, seed=2)
    assert one.messages == again.messages
    assert one.messages != other.messages


async def test_every_run_restarts_the_market() -> None:
    clock = ManualClock()
    feed = SimulatedFeed(FeedOptions(clock, symbols=1), sleep=FakeSleep(clock).sleep)
    recorders = PublishRecorder(3), PublishRecorder(3)
    for recorder in recorders:
        with pytest.raises(asyncio.CancelledError):
            await feed.run(recorder)
    one, again = (recorder.of_topic("ORDERBOOK")[0] for recorder in recorders)
    assert one == again
    assert one.kind == "snapshot"


async def test_symbols_step_in_turn() -> None:
    recorder, _ = await play(200)
    symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "EURUSD"]
    prices = [line.topic for line in recorder.of_topic("PRICE")]
    assert prices[:9] == [f"PRICE:{each}" for each in (*symbols, *symbols, symbols[0])]
    updates = [line.topic for line in recorder.of_topic("ORDERBOOK") if line.kind == "update"]
    assert updates[:9] == [f"ORDERBOOK:{each}" for each in (*symbols, *symbols, symbols[0])]


@pytest.mark.parametrize("symbol", ["BTCUSDT", "EURUSD"])
async def test_book_begins_with_its_only_snapshot(symbol: str) -> None:
    recorder, _ = await play(500)
    kinds = [line.kind for line in recorder.of_topic(f"ORDERBOOK:{symbol}")]
    assert kinds[0] == "snapshot"
    assert set(kinds[1:]) == {"update"}
    assert {line.kind for line in recorder.messages if not line.topic.startswith("ORDERBOOK")} == {
        "update"
    }


async def test_market_has_the_configured_number_of_symbols() -> None:
    recorder, _ = await play(400, symbols=6)
    assert [line.topic for line in recorder.of_topic("PRICE")[:6]] == [
        "PRICE:BTCUSDT",
        "PRICE:ETHUSDT",
        "PRICE:SOLUSDT",
        "PRICE:EURUSD",
        "PRICE:SYM005USDT",
        "PRICE:SYM006USDT",
    ]


@pytest.mark.parametrize("topic", ["PRICE:BTCUSDT", "ORDERBOOK:BTCUSDT", "TRADES:BTCUSDT"])
async def test_symbol_walks_independently_of_others(topic: str) -> None:
    # The same steps per symbol and second, so that the times of the trades are equal too.
    alone, _ = await play(100, symbols=1, rate=4)
    among_others, _ = await play(700, symbols=8, rate=32)
    pairs = list(zip(alone.of_topic(topic), among_others.of_topic(topic), strict=False))
    assert len(pairs) > 10
    assert all(one == other for one, other in pairs)


async def test_generated_symbols_walk_differently() -> None:
    recorder, _ = await play(400, symbols=6)
    one, other = (
        [line.data for line in recorder.of_topic(f"PRICE:SYM{number}USDT")]
        for number in ("005", "006")
    )
    assert one != other


async def test_prices_are_plain_decimals_of_the_tick() -> None:
    recorder, _ = await play(4000, symbols=8)
    decimals: dict[str, set[int]] = {}
    for line in recorder.of_topic("PRICE"):
        for name, text in line.data.items():
            assert PLAIN_DECIMAL.fullmatch(str(text))
            if name != "volume":
                decimals.setdefault(line.topic, set()).add(len(str(text).split(".")[1]))
    assert all(len(each) == 1 for each in decimals.values())
    assert decimals["PRICE:BTCUSDT"] == {2}
    assert decimals["PRICE:EURUSD"] == {5}
    for line in recorder.of_topic("ORDERBOOK"):
        [expected] = decimals[line.topic.replace("ORDERBOOK", "PRICE")]
        for side in ("bids", "asks"):
            for price, quantity in cast("list[list[str]]", line.data[side]):
                assert PLAIN_DECIMAL.fullmatch(price)
                assert len(price.split(".")[1]) == expected
                assert quantity == "0" or PLAIN_DECIMAL.fullmatch(quantity)
    for line in recorder.of_topic("TRADES"):
        [expected] = decimals[line.topic.replace("TRADES", "PRICE")]
        [trade] = cast("list[dict[str, str]]", line.data["trades"])
        assert PLAIN_DECIMAL.fullmatch(trade["qty"])
        assert PLAIN_DECIMAL.fullmatch(trade["price"])
        assert len(trade["price"].split(".")[1]) == expected


async def test_rate_is_shared_by_all_symbols() -> None:
    recorder, sleeps = await play(150, rate=10)
    steps = len(recorder.of_topic("PRICE"))
    assert len(sleeps) == pytest.approx(steps, abs=1)
    assert all(each == pytest.approx(0.1) for each in sleeps)


async def test_fast_market_makes_several_steps_per_sleep() -> None:
    recorder, sleeps = await play(4000, rate=2000)
    assert all(each >= 0.0049 for each in sleeps)
    assert sum(sleeps) == pytest.approx(len(recorder.of_topic("PRICE")) / 2000, abs=0.006)


async def test_late_market_yields_to_other_tasks() -> None:
    _, sleeps = await play(3000, rate=1e9)
    assert len(sleeps) >= 10
    assert set(sleeps) == {0.0}


async def test_feed_does_not_burst_after_a_stall() -> None:
    clock, recorder = ManualClock(), PublishRecorder(40)
    steps_at: list[int] = []
    sleeps: list[float] = []

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        steps_at.append(len(recorder.of_topic("PRICE")))
        clock.advance(60 if len(sleeps) == 1 else seconds)

    with pytest.raises(asyncio.CancelledError):
        await SimulatedFeed(FeedOptions(clock, rate=10), sleep=sleep).run(recorder)
    # One delayed step at once; then the normal rate.
    assert steps_at[:4] == [1, 3, 4, 5]
    assert sleeps[1:4] == pytest.approx([0.1] * 3)


async def test_feed_catches_up_after_a_short_delay() -> None:
    clock, recorder = ManualClock(), PublishRecorder(60)
    started_at = clock.monotonic()
    late = iter([0.05, 0.25, 0.5])

    async def sleep(seconds: float) -> None:
        clock.advance(seconds + next(late, 0.0))

    with pytest.raises(asyncio.CancelledError):
        await SimulatedFeed(FeedOptions(clock, rate=10), sleep=sleep).run(recorder)
    steps = len(recorder.of_topic("PRICE"))
    assert clock.monotonic() - started_at == pytest.approx(steps / 10, abs=0.15)


@pytest.mark.parametrize(
    ("symbols", "rate"), [(0, 1.0), (-1, 1.0), (4, 0.0), (4, -1.0), (4, math.inf), (4, math.nan)]
)
def test_market_without_symbols_or_rate_is_refused(symbols: int, rate: float) -> None:
    with pytest.raises(FeedError, match="needs symbols"):
        SimulatedFeed(FeedOptions(ManualClock(), symbols=symbols, rate=rate))


def test_simulated_market_takes_no_argument() -> None:
    with pytest.raises(FeedError, match="no argument"):
        SimulatedFeed(FeedOptions(ManualClock(), argument="8"))


class FailingRecorder(PublishRecorder):
    """Records all messages, and refuses ten of them."""

    async def publish(self, topic: str, data: Mapping[str, object], **fields: Any) -> Position:
        position = await super().publish(topic, data, **fields)
        if 10 <= len(self.messages) < 20:
            raise FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker cannot be reached")
        return position


async def test_market_sends_a_snapshot_after_refused_messages(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, recorder = ManualClock(), FailingRecorder(40)
    with pytest.raises(asyncio.CancelledError):
        await SimulatedFeed(FeedOptions(clock, symbols=1), sleep=FakeSleep(clock).sleep).run(
            recorder
        )
    kinds = [line.kind for line in recorder.of_topic("ORDERBOOK")]
    refused = [line.kind for line in recorder.messages[9:19] if line.topic.startswith("ORDERBOOK")]
    accepted = [line.kind for line in recorder.messages[19:] if line.topic.startswith("ORDERBOOK")]
    assert kinds[0] == "snapshot"
    assert "snapshot" in refused, "the snapshot is retried"
    assert "snapshot" in accepted
    assert [each.message for each in caplog.records] == ["a message was refused"]


def play_at(hour: int, minute: int, length: int) -> tuple[SimulatedFeed, PublishRecorder]:
    """A feed whose clock begins at a time of the day."""
    clock, recorder = ManualClock(), PublishRecorder(length)
    clock.advance((hour * 3600 + minute * 60 - clock.time()) % 86_400)
    options = FeedOptions(clock, rate=1.0)
    return SimulatedFeed(options, sleep=FakeSleep(clock).sleep), recorder


async def test_symbols_have_reference_data_and_are_open() -> None:
    feed, recorder = play_at(12, 0, 50)
    with pytest.raises(asyncio.CancelledError):
        await feed.run(recorder)
    assert recorder.instruments["EURUSD"] == {
        "base": "EUR",
        "quote": "USD",
        "status": "OPEN",
        "tick_size": "0.00001",
        "lot_size": "0.001",
    }
    assert set(recorder.instruments) == {"BTCUSDT", "ETHUSDT", "SOLUSDT", "EURUSD"}


async def test_currency_closes_for_its_daily_break() -> None:
    feed, recorder = play_at(21, 59, 1200)
    statuses: list[object] = []
    prices: list[int] = []

    async def set_instrument(symbol: str, fields: Mapping[str, object]) -> None:
        if symbol == "EURUSD":
            statuses.append(fields["status"])
            prices.append(len(recorder.of_topic("PRICE:EURUSD")))

    recorder.set_instrument = set_instrument  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await feed.run(recorder)
    assert statuses == ["OPEN", "CLOSED", "OPEN"]
    # It publishes nothing in between, apart from the step that opens it.
    assert prices[2] - prices[1] <= 1
    assert len(recorder.of_topic("PRICE:BTCUSDT")) > prices[2]


async def test_symbol_that_begins_closed_is_known() -> None:
    feed, recorder = play_at(22, 1, 20)
    with pytest.raises(asyncio.CancelledError):
        await feed.run(recorder)
    assert recorder.instruments["EURUSD"]["status"] == "CLOSED"
    assert len(recorder.of_topic("PRICE:EURUSD")) == 1
