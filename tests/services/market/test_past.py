"""Subscribing with `since` a time, with `last`, and to topics that nobody knows."""

from typing import Any

import orjson
import pytest

from server.core.errors import RequestError
from server.core.log.entries import Position
from server.services import SubscribingConfig
from server.services.market.past import Since, SinceTime
from server.services.market.subscribing import subscribe_result
from tests.kit.rigs.market import PRICE, MarketRig, trader


async def subscribed(
    market: MarketRig, topic: str, since: Since | None = None, last: int = 0
) -> dict[str, Any]:
    """The reply to a new client."""
    market.connect("ann")
    replies = await market.service.subscribe(
        "ann", trader(), [topic], since=None if since is None else {topic: since}, last=last
    )
    reply: dict[str, Any] = orjson.loads(orjson.dumps(replies[topic]))
    return reply


def numbers(reply: dict[str, Any]) -> list[int]:
    """The trades among the missed messages."""
    return [each["data"]["trades"][0]["id"] for each in reply["missed"]]


async def trades(market: MarketRig, count: int) -> None:
    """Publish trades, one a second."""
    for number in range(1, count + 1):
        await market.trade("A", number)
        market.clock.advance(1.0)


async def test_last_returns_the_newest_kept_messages() -> None:
    market = await MarketRig.create()
    await trades(market, 5)
    reply = await subscribed(market, "TRADES:A", last=3)
    assert numbers(reply) == [3, 4, 5]
    assert (reply["recovered"], reply["snapshot"], reply["seq"]) == (False, None, 5)


async def test_last_returns_fewer_if_fewer_are_kept_or_fit() -> None:
    market = await MarketRig.create(subscribing=SubscribingConfig(max_reply_bytes=150))
    await trades(market, 2)
    assert numbers(await subscribed(market, "TRADES:A", last=10)) == [1, 2]
    await trades(market, 5)
    assert numbers(await subscribed(market, "TRADES:A", last=10)) == [4, 5]


async def test_since_a_time_returns_what_came_then_or_later() -> None:
    market = await MarketRig.create()
    start_ms = int(market.clock.time() * 1000)
    await trades(market, 5)
    reply = await subscribed(market, "TRADES:A", SinceTime(start_ms + 2000))
    assert numbers(reply) == [3, 4, 5]
    assert reply["recovered"] is True
    assert numbers(await subscribed(market, "TRADES:A", SinceTime(0))) == [1, 2, 3, 4, 5]
    assert numbers(await subscribed(market, "TRADES:A", SinceTime(start_ms + 9000))) == []


async def test_since_a_time_before_the_history_recovers_nothing() -> None:
    market = await MarketRig.create()
    start_ms = int(market.clock.time() * 1000)
    await trades(market, 5)
    market.clock.advance(297.0)
    await market.trade("A", 6)
    reply = await subscribed(market, "TRADES:A", SinceTime(start_ms))
    assert (reply["recovered"], reply["missed"]) == (False, [])
    assert reply["snapshot"]["data"]["trades"][0]["id"] == 6
    both = await subscribed(market, "TRADES:A", SinceTime(start_ms), last=2)
    assert (both["recovered"], numbers(both)) == (False, [5, 6])


async def test_known_position_comes_before_last() -> None:
    market = await MarketRig.create()
    await trades(market, 4)
    reply = await subscribed(market, "TRADES:A", Position("e1", 3), last=3)
    assert (reply["recovered"], numbers(reply)) == (True, [4])


async def test_merged_stream_answers_a_time_with_its_snapshot() -> None:
    market = await MarketRig.create()
    await market.price("A", 7)
    reply = await subscribed(market, "PRICE:A", SinceTime(0), last=5)
    assert reply["recovered"] is True
    assert reply["snapshot"]["data"]["last"] == "7"
    assert reply["missed"] == []


async def test_reply_says_if_a_topic_is_known_and_live() -> None:
    market = await MarketRig.create()
    reply = await subscribed(market, "PRICE:A")
    assert (reply["known"], reply["state"]) == (False, "LIVE")
    await market.price("A")
    reply = await subscribed(market, "PRICE:A")
    assert (reply["known"], reply["state"]) == (True, "LIVE")
    channel = market.hub.channel("PRICE:A")
    assert channel is not None
    market.hub.set_stale(channel, 1)
    assert (await subscribed(market, "PRICE:A"))["state"] == "STALE"


async def test_reply_is_not_ok_if_every_topic_is_refused() -> None:
    market = await MarketRig.create()
    market.connect("ann")
    replies = await market.subscribe("ann", "PRICE:btc", "NOISE")
    result = subscribe_result(replies)
    assert result["ok"] is False
    assert result["error"] == replies["PRICE:btc"]["error"]
    assert subscribe_result(await market.subscribe("ann", "PRICE:btc", "PRICE:A"))["ok"] is True


async def test_source_time_reaches_clients_beside_the_data() -> None:
    market = await MarketRig.create()
    ann = await market.client("ann", "PRICE:A", "ORDERBOOK:A")
    await market.publishing.publish("PRICE:A", PRICE, source_ts=5)
    book = {"bids": [("1", "1")], "asks": [("2", "1")]}
    await market.publishing.publish("ORDERBOOK:A", book, kind="snapshot", source_ts=6)
    market.settle()
    price, levels = ann.messages("price")[0], ann.messages("orderbook")[0]
    assert (price["source_ts"], price["data"]) == (5, PRICE)
    assert (levels["source_ts"], set(levels["data"])) == (6, {"bids", "asks", "checksum"})
    late = await subscribed(market, "ORDERBOOK:A")
    assert late["snapshot"]["source_ts"] == 6
    await market.price("A")
    market.settle()
    assert "source_ts" not in ann.messages("price")[1]


async def test_reserved_field_is_refused() -> None:
    market = await MarketRig.create()
    with pytest.raises(RequestError, match="source_ts"):
        await market.publishing.publish("PRICE:A", {**PRICE, "$source_ts": 1})
