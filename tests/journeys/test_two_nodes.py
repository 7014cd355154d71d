"""Test two servers over one Redis: each delivers what either publishes."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.kit.clients.wire import RawClient
from tests.kit.redis.servers import RedisServer
from tests.kit.server.in_process import PRICE, RunningServer
from tests.kit.server.nodes import Node, nodes


@pytest.fixture(name="cluster")
async def two_nodes(shared_redis: RedisServer) -> AsyncIterator[list[Node]]:
    """Two nodes with one Redis."""
    async with nodes(shared_redis) as started:
        yield started


@contextlib.asynccontextmanager
async def trader(node: RunningServer, user: str) -> AsyncIterator[RawClient]:
    """A connected market client."""
    client = await RawClient.connect(node.port, node.token(user))
    yield client
    client.cut()


async def next_body(client: RawClient, event: str) -> Any:
    """The body of the next event of this name."""
    while True:
        name, body = await client.event()
        if name == event:
            return body


async def test_two_nodes_share_one_market(cluster: list[Node]) -> None:
    async with trader(cluster[0], "ann") as ann, trader(cluster[1], "bob") as bob:
        for client in (ann, bob):
            await client.call("subscribe", {"topics": ["PRICE:A"]})
        for number, node in enumerate((*cluster, *cluster), 1):
            data = {**PRICE, "last": str(number)}
            position = await node.server.market.publishing.publish("PRICE:A", data)
            messages = [await next_body(client, "price") for client in (ann, bob)]
            assert messages[0] == messages[1]
            assert (messages[0]["epoch"], messages[0]["seq"]) == (position.epoch, number)
            assert (messages[0]["prev"], messages[0]["data"]) == (number - 1, data)


async def test_client_resubscribes_at_the_other_node(
    cluster: list[Node],
) -> None:
    trade = {"id": "1", "price": "1", "qty": "1", "side": "buy", "ts": 1}
    payload = {"messages": [{"topic": "TRADES:A", "data": {"trades": [trade]}}] * 5}
    async with trader(cluster[0], "ann") as ann, trader(cluster[1], "ann") as phone:
        positions = (await ann.call("publish", payload))["positions"]
        reply = await phone.call(
            "subscribe", {"topics": ["TRADES:A"], "since": {"TRADES:A": positions[1]}}
        )
        topic = reply["topics"]["TRADES:A"]
        assert topic["recovered"] is True
        assert [each["seq"] for each in topic["missed"]] == [3, 4, 5]


async def test_two_nodes_publish_to_one_book(cluster: list[Node]) -> None:
    async with trader(cluster[0], "ann") as ann, trader(cluster[1], "bob") as bob:
        for price, publisher in enumerate((ann, bob, bob, ann, bob), 1):
            kind = "snapshot" if price == 1 else "update"
            data = {"bids": [[str(price), "1"]], "asks": []}
            message = {"topic": "ORDERBOOK:A", "data": data, "type": kind}
            answer = await publisher.call("publish", {"messages": [message]})
            assert answer["ok"], answer
        for client in (ann, bob):
            reply = await client.call("subscribe", {"topics": ["ORDERBOOK:A"]})
            bids = reply["topics"]["ORDERBOOK:A"]["snapshot"]["data"]["bids"]
            assert [price for price, _ in bids] == ["5", "4", "3", "2", "1"]


async def test_session_messages_reach_both_nodes(
    cluster: list[Node],
) -> None:
    ann, bob = [
        await RawClient.connect(node.port, node.token(user), namespace="/session")
        for node, user in zip(cluster, ("ann", "bob"), strict=True)
    ]
    for member in (ann, bob):
        reply = await member.call("join", {"session_id": "s"}, namespace="/session")
        assert reply["ok"], reply
    for number, (sender, receiver) in enumerate(((ann, bob), (bob, ann), (ann, bob)), 1):
        request = {"session_id": "s", "data": {"n": number}}
        sent = await sender.call("send", request, namespace="/session")
        assert (sent["ok"], sent["seq"]) == (True, number)
        message = await next_body(receiver, "message")
        while message["seq"] < number:
            message = await next_body(receiver, "message")
        assert (message["seq"], message["id"], message["data"]) == (
            number,
            sent["id"],
            {"n": number},
        )
    request = {"session_id": "s"}
    replies = [await each.call("history", request, namespace="/session") for each in (ann, bob)]
    assert replies[0] == replies[1]
    assert [each["user_id"] for each in replies[0]["messages"]] == ["ann", "bob", "ann"]
    for member in (ann, bob):
        member.cut()
