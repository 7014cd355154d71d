"""The simulated market: the same for a seed, sensible, and at its pace."""

import asyncio
import math
import re
from collections.abc import Mapping
from typing import cast

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
    """Run a feed; what it published, and how long it slept each time."""
    clock, tape = ManualClock(), PublishRecorder(length)
    sleeper = FakeSleep(clock)
    options = FeedOptions(clock, seed=seed, rate=rate, symbols=symbols)
    with pytest.raises(asyncio.CancelledError):
        await SimulatedFeed(options, sleep=sleeper.sleep).run(tape)
    return tape, sleeper.sleeps


async def test_the_same_seed_is_the_same_market_and_another_is_not() -> None:
    one, _ = await play(200)
    again, _ = await play(200)
    other, _ = await play(200, seed=2)
    assert one.messages == again.messages
    assert one.messages != other.messages


async def test_every_run_begins_the_market_anew() -> None:
    clock = ManualClock()
    feed = SimulatedFeed(FeedOptions(clock, symbols=1), sleep=FakeSleep(clock).sleep)
    tapes = PublishRecorder(3), PublishRecorder(3)
    for tape in tapes:
        with pytest.raises(asyncio.CancelledError):
            await feed.run(tape)
    one, again = (tape.of_topic("ORDERBOOK")[0] for tape in tapes)
    assert one == again
    assert one.kind == "snapshot"


async def test_each_symbol_takes_its_turn_with_its_book_and_its_price() -> None:
    tape, _ = await play(200)
    symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "EURUSD"]
    prices = [line.topic for line in tape.of_topic("PRICE")]
    assert prices[:9] == [f"PRICE:{each}" for each in (*symbols, *symbols, symbols[0])]
    updates = [line.topic for line in tape.of_topic("ORDERBOOK") if line.kind == "update"]
    assert updates[:9] == [f"ORDERBOOK:{each}" for each in (*symbols, *symbols, symbols[0])]


@pytest.mark.parametrize("symbol", ["BTCUSDT", "EURUSD"])
async def test_a_book_begins_with_its_one_snapshot(symbol: str) -> None:
    tape, _ = await play(500)
    kinds = [line.kind for line in tape.of_topic(f"ORDERBOOK:{symbol}")]
    assert kinds[0] == "snapshot"
    assert set(kinds[1:]) == {"update"}
    assert {line.kind for line in tape.messages if not line.topic.startswith("ORDERBOOK")} == {
        "update"
    }


async def test_a_market_has_as_many_symbols_as_were_asked_for() -> None:
    tape, _ = await play(400, symbols=6)
    assert [line.topic for line in tape.of_topic("PRICE")[:6]] == [
        "PRICE:BTCUSDT",
        "PRICE:ETHUSDT",
        "PRICE:SOLUSDT",
        "PRICE:EURUSD",
        "PRICE:SYM005USDT",
        "PRICE:SYM006USDT",
    ]


@pytest.mark.parametrize("topic", ["PRICE:BTCUSDT", "ORDERBOOK:BTCUSDT", "TRADES:BTCUSDT"])
async def test_a_symbol_walks_as_it_would_alone(topic: str) -> None:
    # As many steps a symbol and second: the times in the trades are the same too.
    alone, _ = await play(100, symbols=1, rate=4)
    beside, _ = await play(700, symbols=8, rate=32)
    pairs = list(zip(alone.of_topic(topic), beside.of_topic(topic), strict=False))
    assert len(pairs) > 10
    assert all(one == other for one, other in pairs)


async def test_two_made_up_symbols_are_not_the_same_market() -> None:
    tape, _ = await play(400, symbols=6)
    one, other = (
        [line.data for line in tape.of_topic(f"PRICE:SYM{number}USDT")] for number in ("005", "006")
    )
    assert one != other


async def test_every_number_is_plain_and_every_price_has_the_decimals_of_its_tick() -> None:
    tape, _ = await play(4000, symbols=8)
    decimals: dict[str, set[int]] = {}
    for line in tape.of_topic("PRICE"):
        for name, text in line.data.items():
            assert PLAIN_DECIMAL.fullmatch(str(text))
            if name != "volume":
                decimals.setdefault(line.topic, set()).add(len(str(text).split(".")[1]))
    assert all(len(each) == 1 for each in decimals.values())
    assert decimals["PRICE:BTCUSDT"] == {2}
    assert decimals["PRICE:EURUSD"] == {5}
    for line in tape.of_topic("ORDERBOOK"):
        [expected] = decimals[line.topic.replace("ORDERBOOK", "PRICE")]
        for side in ("bids", "asks"):
            for price, quantity in cast("list[list[str]]", line.data[side]):
                assert PLAIN_DECIMAL.fullmatch(price)
                assert len(price.split(".")[1]) == expected
                assert quantity == "0" or PLAIN_DECIMAL.fullmatch(quantity)
    for line in tape.of_topic("TRADES"):
        [expected] = decimals[line.topic.replace("TRADES", "PRICE")]
        [trade] = cast("list[dict[str, str]]", line.data["trades"])
        assert PLAIN_DECIMAL.fullmatch(trade["qty"])
        assert PLAIN_DECIMAL.fullmatch(trade["price"])
        assert len(trade["price"].split(".")[1]) == expected


async def test_the_pace_is_even_over_all_symbols_together() -> None:
    tape, slept = await play(150, rate=10)
    steps = len(tape.of_topic("PRICE"))
    assert len(slept) == pytest.approx(steps, abs=1)
    assert all(each == pytest.approx(0.1) for each in slept)


async def test_a_fast_market_makes_several_steps_between_two_sleeps() -> None:
    tape, slept = await play(4000, rate=2000)
    assert all(each >= 0.0049 for each in slept)
    assert sum(slept) == pytest.approx(len(tape.of_topic("PRICE")) / 2000, abs=0.006)


async def test_a_market_that_cannot_keep_up_lets_others_run() -> None:
    _, slept = await play(3000, rate=1e9)
    assert len(slept) >= 10
    assert set(slept) == {0.0}


async def test_after_a_stall_the_feed_does_not_burst() -> None:
    clock, tape = ManualClock(), PublishRecorder(40)
    steps_at: list[int] = []
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        steps_at.append(len(tape.of_topic("PRICE")))
        clock.advance(60 if len(slept) == 1 else seconds)

    with pytest.raises(asyncio.CancelledError):
        await SimulatedFeed(FeedOptions(clock, rate=10), sleep=sleep).run(tape)
    # One step at once, the one that the stall has delayed; then as ever.
    assert steps_at[:4] == [1, 3, 4, 5]
    assert slept[1:4] == pytest.approx([0.1] * 3)


async def test_a_short_delay_is_made_up_for() -> None:
    clock, tape = ManualClock(), PublishRecorder(60)
    began = clock.monotonic()
    late = iter([0.05, 0.25, 0.5])

    async def sleep(seconds: float) -> None:
        clock.advance(seconds + next(late, 0.0))

    with pytest.raises(asyncio.CancelledError):
        await SimulatedFeed(FeedOptions(clock, rate=10), sleep=sleep).run(tape)
    steps = len(tape.of_topic("PRICE"))
    assert clock.monotonic() - began == pytest.approx(steps / 10, abs=0.15)


@pytest.mark.parametrize(
    ("symbols", "rate"), [(0, 1.0), (-1, 1.0), (4, 0.0), (4, -1.0), (4, math.inf), (4, math.nan)]
)
def test_a_market_that_could_not_move_is_refused(symbols: int, rate: float) -> None:
    with pytest.raises(FeedError, match="needs symbols"):
        SimulatedFeed(FeedOptions(ManualClock(), symbols=symbols, rate=rate))


def test_the_market_takes_no_argument() -> None:
    with pytest.raises(FeedError, match="no argument"):
        SimulatedFeed(FeedOptions(ManualClock(), argument="8"))


class FailingRecorder(PublishRecorder):
    """A market that takes nothing for a while."""

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
    ) -> Position:
        position = await super().publish(topic, data, kind=kind, user=user, org=org)
        if 10 <= len(self.messages) < 20:
            raise FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker cannot be reached")
        return position


async def test_a_market_that_was_not_heard_goes_on_and_begins_again_with_the_whole_book(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, tape = ManualClock(), FailingRecorder(40)
    with pytest.raises(asyncio.CancelledError):
        await SimulatedFeed(FeedOptions(clock, symbols=1), sleep=FakeSleep(clock).sleep).run(tape)
    kinds = [line.kind for line in tape.of_topic("ORDERBOOK")]
    refused = [line.kind for line in tape.messages[9:19] if line.topic.startswith("ORDERBOOK")]
    heard = [line.kind for line in tape.messages[19:] if line.topic.startswith("ORDERBOOK")]
    assert kinds[0] == "snapshot"
    assert "snapshot" in refused, "it is tried again and again"
    assert "snapshot" in heard
    assert [each.message for each in caplog.records] == ["a message was refused"]
