"""Two servers over one Redis: what is published at either is heard at both."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.kit.clients.wire import RawClient
from tests.kit.redis.servers import RedisServer
from tests.kit.server.in_process import PRICE, RunningServer, running


@pytest.fixture
async def floors(
    shared_redis: RedisServer, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[RunningServer, RunningServer]]:
    """Two nodes that share nothing but Redis."""
    prefix = f"journey{abs(hash(request.node.name))}"
    settings = {"broker.url": shared_redis.url, "broker.prefix": prefix}
    async with running(settings) as one, running(settings) as other:
        yield one, other


@contextlib.asynccontextmanager
async def trader(node: RunningServer, user: str) -> AsyncIterator[RawClient]:
    """A client in the market."""
    client = await RawClient.connect(node.port, node.token(user))
    yield client
    client.cut()


async def next_body(client: RawClient, event: str) -> Any:
    """The next body of this event."""
    while True:
        name, body = await client.event()
        if name == event:
            return body


async def test_the_market_is_one(floors: tuple[RunningServer, RunningServer]) -> None:
    async with trader(floors[0], "ann") as ann, trader(floors[1], "bob") as bob:
        for client in (ann, bob):
            await client.call("subscribe", {"topics": ["PRICE:A"]})
        for number, floor in enumerate((*floors, *floors), 1):
            data = {**PRICE, "last": str(number)}
            position = await floor.server.publishing.publish("PRICE:A", data)
            heard = [await next_body(client, "price") for client in (ann, bob)]
            assert heard[0] == heard[1]
            assert (heard[0]["epoch"], heard[0]["seq"]) == (position.epoch, number)
            assert (heard[0]["prev"], heard[0]["data"]) == (number - 1, data)


async def test_a_client_comes_back_at_the_other_node(
    floors: tuple[RunningServer, RunningServer],
) -> None:
    trade = {"id": "1", "price": "1", "qty": "1", "side": "buy", "ts": 1}
    news = {"messages": [{"topic": "TRADES:A", "data": {"trades": [trade]}}] * 5}
    async with trader(floors[0], "ann") as ann, trader(floors[1], "ann") as again:
        positions = (await ann.call("publish", news))["positions"]
        reply = await again.call(
            "subscribe", {"topics": ["TRADES:A"], "since": {"TRADES:A": positions[1]}}
        )
        told = reply["topics"]["TRADES:A"]
        assert told["recovered"] is True
        assert [each["seq"] for each in told["missed"]] == [3, 4, 5]


async def test_a_book_has_two_publishers(floors: tuple[RunningServer, RunningServer]) -> None:
    async with trader(floors[0], "ann") as ann, trader(floors[1], "bob") as bob:
        for price, publisher in enumerate((ann, bob, bob, ann, bob), 1):
            data = {"bids": [[str(price), "1"]], "asks": []}
            answer = await publisher.call(
                "publish", {"messages": [{"topic": "ORDERBOOK:A", "data": data}]}
            )
            assert answer["ok"], answer
        for client in (ann, bob):
            reply = await client.call("subscribe", {"topics": ["ORDERBOOK:A"]})
            bids = reply["topics"]["ORDERBOOK:A"]["snapshot"]["data"]["bids"]
            assert [price for price, _ in bids] == ["5", "4", "3", "2", "1"]


async def test_what_is_said_in_a_session_is_heard_at_both_nodes(
    floors: tuple[RunningServer, RunningServer],
) -> None:
    ann, bob = [
        await RawClient.connect(floor.port, floor.token(user), namespace="/session")
        for floor, user in zip(floors, ("ann", "bob"), strict=True)
    ]
    for member in (ann, bob):
        reply = await member.call("join", {"session_id": "s"}, namespace="/session")
        assert reply["ok"], reply
    for number, (speaker, other) in enumerate(((ann, bob), (bob, ann), (ann, bob)), 1):
        said = {"session_id": "s", "data": {"n": number}}
        sent = await speaker.call("send", said, namespace="/session")
        assert (sent["ok"], sent["seq"]) == (True, number)
        heard = await next_body(other, "message")
        while heard["seq"] < number:
            heard = await next_body(other, "message")
        assert (heard["seq"], heard["id"], heard["data"]) == (number, sent["id"], {"n": number})
    asked = {"session_id": "s"}
    told = [await each.call("history", asked, namespace="/session") for each in (ann, bob)]
    assert told[0] == told[1]
    assert [each["user_id"] for each in told[0]["messages"]] == ["ann", "bob", "ann"]
    for member in (ann, bob):
        member.cut()
