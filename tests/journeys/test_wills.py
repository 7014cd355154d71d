"""A will is published once its user is gone for so long, and only then."""

from pathlib import Path
from typing import Any

import pytest

from client_sdk.contract import Scope
from floorcast.server import authorize
from tests.kit.clients.recovering import market_client
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.clock import ManualClock
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running

GONE = [{"topic": "PRICE:A", "data": PRICE}]
TOPIC = "PRICE:A"


async def set_will(client: RawClient, after_ms: int = 3000, messages: object = None) -> Any:
    return await client.call("will", {"after_ms": after_ms, "messages": messages or GONE})


async def count(node: RunningServer, topic: str = TOPIC) -> int:
    """How many messages were published to a topic."""
    return (await node.server.backend.broker.head(topic)).seq


async def until_published(node: RunningServer, total: int) -> None:
    await until(lambda: node.server.counters.total("wills.published") == total)


async def test_will_is_published_once_the_last_connection_is_gone() -> None:
    async with running() as node:
        market = await RawClient.connect(node.port, node.token())
        member = await SessionClient.connect(node, "ann")
        assert await set_will(market) == {"ok": True}
        market.cut()
        await until(lambda: len(node.server.clients.context.clients()) == 1)
        node.pass_time(5)
        member.client.cut()
        await node.until_empty()
        node.pass_time(2.9)
        assert node.server.counters.total("wills.published") == 0
        node.pass_time(0.2)
        await until_published(node, 1)
        node.pass_time(60)
        await until_published(node, 1)
        assert await count(node) == 1


async def test_messages_of_a_will_keep_their_order_and_ids() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        trades = [
            {
                "topic": "TRADES:A",
                "data": {
                    "trades": [{"id": str(n), "price": "1", "qty": "1", "side": "buy", "ts": 1}]
                },
                "id": f"bye-{n}",
            }
            for n in range(3)
        ]
        await set_will(client, 0, trades)
        # The client publishes one of them itself: the same id is the same message.
        await client.call("publish", {"messages": trades[:1]})
        client.cut()
        await node.until_empty()
        node.pass_time(0.1)
        await until_published(node, 1)
        entries = await node.server.backend.broker.before("TRADES:A", None, 10)
        assert [each.data.count(b'"id":"%d"' % n) for n, each in enumerate(entries)] == [1, 1, 1]


@pytest.mark.parametrize("how", ["null", "return", "replaced"])
async def test_will_is_taken_back(how: str) -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        await set_will(client)
        if how == "null":
            assert await client.call("will", {"messages": None}) == {"ok": True}
        elif how == "replaced":
            await set_will(client, 3000, [{"topic": "PRICE:B", "data": PRICE}])
        client.cut()
        await node.until_empty()
        if how == "return":
            node.pass_time(2)
            other = await RawClient.connect(node.port, node.token(), namespace="/session")
            other.cut()
            await node.until_empty()
        node.pass_time(10)
        await until_published(node, int(how == "replaced"))
        assert await count(node) == 0
        assert await count(node, "PRICE:B") == int(how == "replaced")


async def test_resumed_connection_keeps_its_will() -> None:
    async with running() as node:
        ann = await market_client(node, "TRADES:A")
        await ann.wire.call("will", {"after_ms": 3000, "messages": GONE})
        await ann.cut()
        node.pass_time(2)
        await ann.connect()
        assert ann.recovered
        node.pass_time(10)
        assert await count(node) == 0
        await ann.cut()
        node.pass_time(3.1)
        await until_published(node, 1)


@pytest.mark.parametrize(
    ("request_body", "code"),
    [
        ({"after_ms": 1, "messages": [{"topic": "PRICE:B", "data": PRICE}]}, "auth.forbidden"),
        (
            {"after_ms": 1, "messages": [{"topic": "PRICE:A", "data": {"bid": 1}}]},
            "request.invalid",
        ),
        ({"after_ms": 1, "messages": [*GONE, {"topic": "NO:A", "data": {}}]}, "topic.unknown"),
        ({"after_ms": 1, "messages": [{"topic": "USER_DATA", "data": {}}]}, "request.invalid"),
        ({"after_ms": 1, "messages": [{"topic": "PRICE:A"}]}, "request.invalid"),
        ({"after_ms": 1, "messages": []}, "request.invalid"),
        ({"after_ms": 1, "messages": GONE * 101}, "request.invalid"),
        ({"messages": GONE}, "request.invalid"),
        ({"after_ms": -1, "messages": GONE}, "request.invalid"),
        ({"after_ms": 86_400_001, "messages": GONE}, "request.invalid"),
        ({"after_ms": 1.5, "messages": GONE}, "request.invalid"),
        ({}, "request.invalid"),
        (
            {
                "after_ms": 1,
                "messages": [
                    {"topic": "BOT_STATUS", "user": "ann", "data": {"note": "y" * 66_000}}
                ],
            },
            "limit.payload",
        ),
    ],
)
async def test_will_is_refused_as_a_whole(request_body: object, code: str) -> None:
    async with running({"limits.event_burst": 1000}) as node:
        client = await RawClient.connect(node.port, node.token(symbols=["A"]))
        reply = await client.call("will", request_body)
        assert reply["error"]["code"] == code
        client.cut()
        await node.until_empty()
        node.pass_time(10)
        assert node.server.counters.total("wills.published") == 0


async def test_will_needs_the_right_to_publish_now() -> None:
    rule = authorize(may_publish=lambda principal, topic: topic != "PRICE:A")
    async with running(authorize=rule) as node:
        client = await RawClient.connect(node.port, node.token())
        assert (await set_will(client))["error"]["code"] == "auth.forbidden"
        reader = await RawClient.connect(node.port, node.token(scopes=[Scope.MARKET_READ]))
        assert (await set_will(reader))["error"]["code"] == "auth.forbidden"
        client.cut()
        reader.cut()


async def test_wills_of_an_org_are_bounded() -> None:
    async with running({"shares.wills_per_org": 1}) as node:
        clients = [await RawClient.connect(node.port, node.token(user)) for user in ("ann", "bob")]
        assert (await set_will(clients[0]))["ok"]
        assert (await set_will(clients[1]))["error"]["code"] == "limit.share"
        for client in clients:
            client.cut()


async def test_will_is_published_after_a_restart(tmp_path: Path) -> None:
    settings, clock = {"broker.url": f"file:{tmp_path}"}, ManualClock()
    async with running(settings, clock=clock) as node:
        ann, bob = [await RawClient.connect(node.port, node.token(user)) for user in ("ann", "bob")]
        await set_will(ann, 5000)
        await set_will(bob, 5000, [{"topic": "PRICE:B", "data": PRICE}])
    clock.advance(2)
    async with running(settings, clock=clock) as node:
        back = await RawClient.connect(node.port, node.token("bob"))
        node.pass_time(2.5)
        assert node.server.counters.total("wills.published") == 0
        node.pass_time(0.7)
        await until_published(node, 1)
        node.pass_time(20)
        assert (await count(node), await count(node, "PRICE:B")) == (1, 0)
        back.cut()
    for client in (ann, bob):
        client.cut()
