"""Candles: views of trades, the kept past, and what a restart or another node has of them."""

from typing import Any

import orjson
import pytest

from server.access import Principal
from server.core.errors import AccessError, RequestError
from server.core.log.entries import Position, Reset
from tests.kit.rigs.market import MarketRig, trader

VIEW = "TRADES:A@1m"
# A minute, on the clock of the tests.
MINUTE = 60_000


async def candle_market() -> MarketRig:
    market = await MarketRig.create()
    await market.kept.start()
    return market


def minute(market: MarketRig) -> int:
    """The start of this minute."""
    now_ms = int(market.clock.time() * 1000)
    return now_ms - now_ms % MINUTE


async def trade(market: MarketRig, ts_ms: int, price: str = "1", qty: str = "1") -> None:
    one = {"id": 1, "price": price, "qty": qty, "side": "buy", "ts": ts_ms}
    await market.publishing.publish("TRADES:A", {"trades": [one]})


async def subscribe(market: MarketRig, name: str = "ann", topic: str = VIEW) -> Any:
    """A new client's link and its reply."""
    link = market.connect(name)
    replies = await market.service.subscribe(name, trader(name), [topic])
    return link, orjson.loads(orjson.dumps(replies))[topic]


async def find(market: MarketRig, **query: Any) -> list[Any]:
    found = await market.candles.find(trader(), "A", "1m", query.pop("limit", 500), **query)
    return found.bars


async def test_view_of_bars_begins_with_the_kept_ones_and_sends_what_changes() -> None:
    market = await candle_market()
    t = minute(market)
    await trade(market, t, "5", "1.50")
    ann, reply = await subscribe(market)
    assert (reply["seq"], reply["snapshot"]["view"]) == (1, "1m")
    bar = {"t": t, "o": "5", "h": "5", "l": "5", "c": "5", "v": "1.50", "n": 1, "closed": False}
    assert reply["snapshot"]["data"] == {"bars": [bar]}
    await trade(market, t + 1, "6", "0.25")
    await trade(market, t + MINUTE, "7")
    market.settle()
    first, second = ann.messages("trades")
    assert (first["type"], first["prev"], first["seq"]) == ("update", 1, 2)
    assert [(each["c"], each["v"]) for each in first["data"]["bars"]] == [("6", "1.75")]
    assert [(each["t"], each["closed"]) for each in second["data"]["bars"]] == [
        (t, True),
        (t + MINUTE, False),
    ]


async def test_view_of_bars_is_merged_like_a_merged_topic() -> None:
    market = await candle_market()
    t = minute(market)
    ann = market.connect("ann")
    reply = await market.subscribe("ann", VIEW, interval_ms=100)
    assert (reply[VIEW]["interval_ms"], reply[VIEW]["known"]) == (100, False)
    for number in range(3):
        await trade(market, t + number)
    await trade(market, t + MINUTE)
    market.pass_time(0.2)
    (message,) = ann.messages("trades")
    assert (message["merged"], message["seq"], message["prev"]) == (4, 4, 0)
    assert [(each["n"], each["closed"]) for each in message["data"]["bars"]] == [
        (3, True),
        (1, False),
    ]


async def test_another_node_goes_on_from_the_kept_bars() -> None:
    market = await candle_market()
    t = minute(market)
    await trade(market, t, "1")
    await market.keeper.sweep()
    await trade(market, t + 1, "2")
    market.clock.advance(6.0)
    await market.keeper.sweep()
    # The history of the trades is gone; what came since is in it.
    market.broker.drop_history("TRADES:A")
    await trade(market, t + 2, "3")
    _, reply = await subscribe(market)
    (bar,) = reply["snapshot"]["data"]["bars"]
    assert (bar["o"], bar["c"], bar["n"]) == ("1", "3", 3)
    assert await find(market) == [bar]


async def test_bars_are_kept_at_the_end_of_a_node() -> None:
    market = await candle_market()
    t = minute(market)
    await trade(market, t)
    await market.keeper.sweep()
    await trade(market, t + 1)
    await market.keeper.stop()
    kept = await market.store.read("A", "1m")
    assert (kept.position, [each.n for each in kept.bars]) == (Position("e1", 2), [2])


async def test_old_chunks_stay_when_new_ones_are_written() -> None:
    market = await candle_market()
    t = minute(market) - 100 * MINUTE
    await trade(market, t)
    await market.keeper.sweep()
    for number in range(1, 101):
        await trade(market, t + number * MINUTE)
        market.clock.advance(6.0)
        await market.keeper.sweep()
    kept = await market.store.read("A", "1m")
    assert [each.t for each in sorted(kept.bars, key=lambda bar: bar.t)] == [
        t + number * MINUTE for number in range(101)
    ]


async def test_silent_symbol_is_left() -> None:
    market = await candle_market()
    await trade(market, minute(market))
    await market.keeper.sweep()
    assert {each.name for each in market.hub.channels()} == {"TRADES:A", "bars@A"}
    market.clock.advance(6.0)
    await market.keeper.sweep()
    market.clock.advance(700.0)
    await market.keeper.sweep()
    assert market.hub.channels() == ()


async def test_missed_trades_are_counted_after_a_reset() -> None:
    market = await candle_market()
    t = minute(market)
    await trade(market, t)
    await market.keeper.sweep()
    ann, _ = await subscribe(market)
    broker, deliver = market.broker, market.broker._deliver
    broker._deliver = lambda entry: None
    await trade(market, t + 1, "7")
    broker._deliver = deliver
    latest = broker.latest_of("TRADES:A")
    market.hub.reset(Reset("TRADES:A", broker.head_of("TRADES:A"), latest))
    await market.topics.rebuild_views()
    await market.keeper.sweep()
    market.settle()
    assert ann.messages("trades")[-1]["data"]["bars"][0]["n"] == 2
    await trade(market, t + 2)
    await market.keeper.stop()
    assert [each.n for each in (await market.store.read("A", "1m")).bars] == [3]


async def test_candles_are_found_by_time_and_number() -> None:
    market = await candle_market()
    t = minute(market) - 10 * MINUTE
    for number in range(5):
        await trade(market, t + number * MINUTE)
    assert [each["t"] for each in await find(market, limit=2)] == [t + 3 * MINUTE, t + 4 * MINUTE]
    assert [each["t"] for each in await find(market, limit=1, before_ms=t + MINUTE)] == [t]
    assert market.hub.channels() == ()


async def test_candles_need_the_right_symbol_and_a_known_interval() -> None:
    market = await candle_market()
    narrowed = Principal("eve", "default", frozenset({"market:read"}), 1e12, symbols=("B*",))
    with pytest.raises(AccessError):
        await market.candles.find(narrowed, "A", "1m", 10)
    with pytest.raises(RequestError):
        await market.candles.find(trader(), "A", "2m", 10)
    assert await find(market) == []


async def test_trade_from_the_future_counts_when_it_arrived() -> None:
    market = await candle_market()
    await trade(market, minute(market) + 10 * MINUTE)
    assert [each["t"] for each in await find(market)] == [minute(market)]
