"""Recovery by position on the market: all missed messages, or `recovered: false`."""

from typing import Any

import orjson
import pytest

from client_sdk.contract import ErrorCode
from server.core.log.entries import Entry, Position
from server.services import SubscribingConfig
from tests.kit.rigs.market import MarketRig, trader


async def resubscribe(
    market: MarketRig, name: str, topic: str, epoch: str, seq: int
) -> dict[str, Any]:
    """The reply to a subscription with `since`."""
    market.connect(name)
    since = {topic: Position(epoch, seq)}
    replies = await market.service.subscribe(name, trader(name), [topic], since=since)
    reply: dict[str, Any] = orjson.loads(orjson.dumps(replies))[topic]
    return reply


async def trades(market: MarketRig, count: int) -> None:
    for number in range(1, count + 1):
        await market.trade("A", number)


async def test_kept_stream_recovers_every_missed_message() -> None:
    market = await MarketRig.create()
    await trades(market, 5)
    reply = await resubscribe(market, "ann", "TRADES:A", "e1", 2)
    assert (reply["recovered"], reply["seq"], reply["snapshot"]) == (True, 5, None)
    assert [(each["seq"], each["prev"], each["type"]) for each in reply["missed"]] == [
        (3, 2, "update"),
        (4, 3, "update"),
        (5, 4, "update"),
    ]
    assert reply["missed"][0]["data"]["trades"][0]["id"] == 3
    reply = await resubscribe(market, "bob", "TRADES:A", "e1", 5)
    assert (reply["recovered"], reply["missed"], reply["snapshot"]) == (True, [], None)


@pytest.mark.parametrize("position", [("e0", 5), ("e1", 99)])
async def test_unknown_position_recovers_nothing(position: tuple[str, int]) -> None:
    market = await MarketRig.create()
    await trades(market, 5)
    await market.price("A")
    for topic in ("TRADES:A", "PRICE:A"):
        reply = await resubscribe(market, topic, topic, *position)
        assert (reply["recovered"], reply["missed"]) == (False, [])
        assert reply["snapshot"]["seq"] == reply["seq"]


async def test_expired_or_oversized_history_is_not_partly_recovered() -> None:
    market = await MarketRig.create(subscribing=SubscribingConfig(max_reply_bytes=400))
    await trades(market, 20)
    reply = await resubscribe(market, "ann", "TRADES:A", "e1", 1)
    assert (reply["recovered"], reply["missed"]) == (False, [])
    assert reply["snapshot"]["seq"] == 20
    reply = await resubscribe(market, "bob", "TRADES:A", "e1", 16)
    assert (reply["recovered"], len(reply["missed"])) == (True, 4)
    market.clock.advance(301)
    await market.trade("A", 21)
    reply = await resubscribe(market, "carl", "TRADES:A", "e1", 19)
    assert reply["recovered"] is False, "history is kept for five minutes"


async def test_merged_stream_recovers_by_its_snapshot() -> None:
    market = await MarketRig.create()
    for last in range(1, 6):
        await market.price("A", last)
    reply = await resubscribe(market, "ann", "PRICE:A", "e1", 2)
    assert (reply["recovered"], reply["missed"]) == (True, [])
    assert (reply["snapshot"]["seq"], reply["snapshot"]["data"]["last"]) == (5, "5")
    reply = await resubscribe(market, "bob", "PRICE:A", "e1", 5)
    assert (reply["recovered"], reply["snapshot"]) == (True, None)


async def test_private_stream_recovers_only_for_its_user() -> None:
    market = await MarketRig.create()
    for number in range(3):
        await market.publishing.publish("USER_DATA", {"n": number}, user="ann")
    reply = await resubscribe(market, "ann", "USER_DATA", "e1", 1)
    assert [each["data"]["n"] for each in reply["missed"]] == [1, 2]
    reply = await resubscribe(market, "bob", "USER_DATA", "e1", 1)
    assert (reply["recovered"], reply["missed"], reply["snapshot"]) == (False, [], None)


async def test_forbidden_topic_recovers_nothing() -> None:
    market = await MarketRig.create()
    await trades(market, 3)
    market.connect("eve")
    narrow = trader("eve").__class__("eve", "default", frozenset(), 1e12, symbols=("B*",))
    requested: list[str] = []
    original = market.broker.since

    async def since(channel: str, position: Position) -> list[Entry] | None:
        requested.append(channel)
        return await original(channel, position)

    market.broker.since = since  # type: ignore[method-assign]
    reply = await market.service.subscribe(
        "eve", narrow, ["TRADES:A"], since={"TRADES:A": Position("e1", 1)}
    )
    assert reply["TRADES:A"]["error"]["code"] == ErrorCode.AUTH_FORBIDDEN  # type: ignore[index]
    assert requested == []


async def test_broker_reads_a_shared_history_once() -> None:
    market = await MarketRig.create()
    await trades(market, 6)
    requested: list[int] = []
    original = market.broker.since

    async def since(channel: str, position: Position) -> list[Entry] | None:
        requested.append(position.seq)
        return await original(channel, position)

    market.broker.since = since  # type: ignore[method-assign]
    for name, seq in (("ann", 3), ("bob", 4), ("carl", 3), ("dora", 1), ("eve", 2)):
        reply = await resubscribe(market, name, "TRADES:A", "e1", seq)
        assert reply["recovered"]
        assert [each["seq"] for each in reply["missed"]] == list(range(seq + 1, 7))
    assert requested == [3, 1], "only the first request, and one from before its range"
    market.clock.advance(301)
    reply = await resubscribe(market, "fay", "TRADES:A", "e1", 3)
    assert (reply["recovered"], requested) == (False, [3, 1, 3]), (
        "expired entries are not recovered"
    )


async def test_next_message_follows_the_recovered_ones() -> None:
    market = await MarketRig.create()
    await trades(market, 3)
    ann = market.connect("ann")
    since = {"TRADES:A": Position("e1", 1)}
    await market.service.subscribe("ann", trader("ann"), since, since=since)
    await market.trade("A", 4)
    market.settle()
    assert [(each["seq"], each["prev"]) for each in ann.messages("trades")] == [(4, 3)]
