"""Coming back to the market with a position: exactly what was missed, or the truth."""

from typing import Any

import orjson
import pytest

from client_sdk.contract import ErrorCode
from server.core.log.entries import Entry, Position
from server.services import SubscribingConfig
from tests.kit.rigs.market import MarketRig, trader


async def back(desk: MarketRig, name: str, topic: str, epoch: str, seq: int) -> dict[str, Any]:
    """What a client is told that was here before."""
    desk.connect(name)
    since = {topic: Position(epoch, seq)}
    replies = await desk.service.subscribe(name, trader(name), [topic], since=since)
    told: dict[str, Any] = orjson.loads(orjson.dumps(replies))[topic]
    return told


async def trades(desk: MarketRig, count: int) -> None:
    for number in range(1, count + 1):
        await desk.trade("A", number)


async def test_a_kept_stream_gives_every_message_that_was_missed() -> None:
    desk = await MarketRig.create()
    await trades(desk, 5)
    told = await back(desk, "ann", "TRADES:A", "e1", 2)
    assert (told["recovered"], told["seq"], told["snapshot"]) == (True, 5, None)
    assert [(each["seq"], each["prev"], each["type"]) for each in told["missed"]] == [
        (3, 2, "update"),
        (4, 3, "update"),
        (5, 4, "update"),
    ]
    assert told["missed"][0]["data"]["trades"][0]["id"] == 3
    told = await back(desk, "bob", "TRADES:A", "e1", 5)
    assert (told["recovered"], told["missed"], told["snapshot"]) == (True, [], None)


@pytest.mark.parametrize("place", [("e0", 5), ("e1", 99)])
async def test_a_place_that_never_was_recovers_nothing(place: tuple[str, int]) -> None:
    desk = await MarketRig.create()
    await trades(desk, 5)
    await desk.price("A")
    for topic in ("TRADES:A", "PRICE:A"):
        told = await back(desk, topic, topic, *place)
        assert (told["recovered"], told["missed"]) == (False, [])
        assert told["snapshot"]["seq"] == told["seq"]


async def test_what_is_too_old_or_too_much_is_not_told_by_halves() -> None:
    desk = await MarketRig.create(subscribing=SubscribingConfig(max_reply_bytes=400))
    await trades(desk, 20)
    told = await back(desk, "ann", "TRADES:A", "e1", 1)
    assert (told["recovered"], told["missed"]) == (False, [])
    assert told["snapshot"]["seq"] == 20
    told = await back(desk, "bob", "TRADES:A", "e1", 16)
    assert (told["recovered"], len(told["missed"])) == (True, 4)
    desk.clock.advance(301)
    await desk.trade("A", 21)
    told = await back(desk, "carl", "TRADES:A", "e1", 19)
    assert told["recovered"] is False, "it was kept for five minutes"


async def test_a_merged_stream_recovers_by_its_state() -> None:
    desk = await MarketRig.create()
    for last in range(1, 6):
        await desk.price("A", last)
    told = await back(desk, "ann", "PRICE:A", "e1", 2)
    assert (told["recovered"], told["missed"]) == (True, [])
    assert (told["snapshot"]["seq"], told["snapshot"]["data"]["last"]) == (5, "5")
    told = await back(desk, "bob", "PRICE:A", "e1", 5)
    assert (told["recovered"], told["snapshot"]) == (True, None)


async def test_a_private_stream_recovers_for_its_user_alone() -> None:
    desk = await MarketRig.create()
    for number in range(3):
        await desk.publishing.publish("USER_DATA", {"n": number}, user="ann")
    told = await back(desk, "ann", "USER_DATA", "e1", 1)
    assert [each["data"]["n"] for each in told["missed"]] == [1, 2]
    told = await back(desk, "bob", "USER_DATA", "e1", 1)
    assert (told["recovered"], told["missed"], told["snapshot"]) == (False, [], None)


async def test_a_topic_that_may_not_be_had_tells_nothing_of_its_past() -> None:
    desk = await MarketRig.create()
    await trades(desk, 3)
    desk.connect("eve")
    narrow = trader("eve").__class__("eve", "default", frozenset(), 1e12, symbols=("B*",))
    asked: list[str] = []
    original = desk.broker.since

    async def since(channel: str, position: Position) -> list[Entry] | None:
        asked.append(channel)
        return await original(channel, position)

    desk.broker.since = since  # type: ignore[method-assign]
    reply = await desk.service.subscribe(
        "eve", narrow, ["TRADES:A"], since={"TRADES:A": Position("e1", 1)}
    )
    assert reply["TRADES:A"]["error"]["code"] == ErrorCode.AUTH_FORBIDDEN  # type: ignore[index]
    assert asked == []


async def test_the_broker_is_asked_once_for_a_past_that_many_come_back_to() -> None:
    desk = await MarketRig.create()
    await trades(desk, 6)
    asked: list[int] = []
    original = desk.broker.since

    async def since(channel: str, position: Position) -> list[Entry] | None:
        asked.append(position.seq)
        return await original(channel, position)

    desk.broker.since = since  # type: ignore[method-assign]
    for name, seq in (("ann", 3), ("bob", 4), ("carl", 3), ("dora", 1), ("eve", 2)):
        told = await back(desk, name, "TRADES:A", "e1", seq)
        assert told["recovered"]
        assert [each["seq"] for each in told["missed"]] == list(range(seq + 1, 7))
    assert asked == [3, 1], "the first, and who had seen even less"
    desk.clock.advance(301)
    told = await back(desk, "fay", "TRADES:A", "e1", 3)
    assert (told["recovered"], asked) == (False, [3, 1, 3]), "what is too old is not told"


async def test_after_coming_back_the_next_message_follows_on() -> None:
    desk = await MarketRig.create()
    await trades(desk, 3)
    ann = desk.connect("ann")
    since = {"TRADES:A": Position("e1", 1)}
    await desk.service.subscribe("ann", trader("ann"), since, since=since)
    await desk.trade("A", 4)
    desk.settle()
    assert [(each["seq"], each["prev"]) for each in ann.messages("trades")] == [(4, 3)]
