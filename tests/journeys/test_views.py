"""Views on two nodes over one Redis: both nodes send the same messages."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.journeys.test_two_nodes import next_body, trader
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.nodes import Node, nodes

VIEW = "ORDERBOOK:A@2"
GROUPED = "ORDERBOOK:A@2/5"


@pytest.fixture(name="cluster")
async def two_nodes(shared_redis: RedisServer) -> AsyncIterator[list[Node]]:
    """Two nodes with one Redis."""
    async with nodes(shared_redis) as started:
        yield started


async def publish(node: Node, bids: list[Any], asks: list[Any], kind: str = "update") -> None:
    await node.server.market.publishing.publish(
        "ORDERBOOK:A", {"bids": bids, "asks": asks}, kind=kind, source_ts=7
    )


async def test_view_is_the_same_on_both_nodes(cluster: list[Node]) -> None:
    bids = [[str(price), "1"] for price in range(20, 10, -1)]
    asks = [[str(price), "1"] for price in range(21, 31)]
    await publish(cluster[0], bids, asks, "snapshot")
    async with trader(cluster[0], "ann") as ann, trader(cluster[1], "bob") as bob:
        request = {"topics": [VIEW, GROUPED]}
        replies = [await client.call("subscribe", request) for client in (ann, bob)]
        assert replies[0] == replies[1]
        grouped = replies[0]["topics"][GROUPED]["snapshot"]["data"]
        assert grouped["bids"] == [["20", "1"], ["15", "5"]]
        for number, node in enumerate((*cluster, *cluster), 2):
            # Beyond the view, then in it.
            await publish(node, [["11", str(number)]], [])
            await publish(node, [["20", str(number)]], [["21", str(number)]])
            messages = []
            for client in (ann, bob):
                each = [await next_body(client, "orderbook") for _ in range(2)]
                messages.append(sorted(each, key=lambda one: (one["view"], one["seq"])))
            assert messages[0] == messages[1]
            assert messages[0][0]["source_ts"] == 7


async def test_client_of_a_view_goes_on_at_the_other_node(cluster: list[Node]) -> None:
    await publish(cluster[0], [["20", "1"], ["10", "1"]], [["21", "1"]], "snapshot")
    async with trader(cluster[0], "ann") as ann, trader(cluster[1], "ann") as phone:
        reply = (await ann.call("subscribe", {"topics": [VIEW]}))["topics"][VIEW]
        since = {"epoch": reply["epoch"], "seq": reply["seq"]}
        again = await phone.call("subscribe", {"topics": [VIEW], "since": {VIEW: since}})
        assert again["topics"][VIEW]["recovered"] is True
        assert again["topics"][VIEW]["snapshot"] is None
        await publish(cluster[1], [["20", "2"]], [])
        assert await next_body(ann, "orderbook") == await next_body(phone, "orderbook")


async def test_candles_are_the_same_on_both_nodes(cluster: list[Node]) -> None:
    publish = cluster[0].server.market.publishing.publish
    view = "TRADES:A@1m"
    trade = {"id": "1", "price": "5", "qty": "0.5", "side": "buy", "ts": 120_000}
    await publish("TRADES:A", {"trades": [trade]})
    async with trader(cluster[0], "ann") as ann, trader(cluster[1], "bob") as bob:
        replies = [await each.call("subscribe", {"topics": [view]}) for each in (ann, bob)]
        assert replies[0] == replies[1]
        (bar,) = replies[0]["topics"][view]["snapshot"]["data"]["bars"]
        assert (bar["t"], bar["v"], bar["closed"]) == (120_000, "0.5", False)
        await publish("TRADES:A", {"trades": [{**trade, "ts": 180_000}]})
        messages = [await next_body(each, "trades") for each in (ann, bob)]
        assert messages[0] == messages[1]
        assert [each["closed"] for each in messages[0]["data"]["bars"]] == [True, False]
        request = {"symbol": "A", "interval": "1m"}
        found = [await each.call("candles", request) for each in (ann, bob)]
        assert found[0] == found[1]
        assert [each["t"] for each in found[0]["bars"]] == [120_000, 180_000]


async def test_pattern_finds_symbols_of_the_other_node(cluster: list[Node]) -> None:
    price = {"bid": "1", "ask": "2", "last": "1", "volume": "1"}
    await cluster[0].server.market.instruments.put("A1", {"base": "A", "status": "HALTED"})
    await until(lambda: cluster[1].server.market.instruments.table.get("A1"))
    async with trader(cluster[1], "bob") as bob:
        listed = await bob.call("instruments", {"match": "A*", "follow": True})
        assert [each["symbol"] for each in listed["instruments"]] == ["A1"]
        reply = await bob.call("subscribe", {"topics": ["PRICE:A*"]})
        assert reply["topics"]["PRICE:A*"]["matched"] == 0
        await cluster[0].server.market.publishing.publish("PRICE:A1", price)
        message = await next_body(bob, "price")
        assert (message["symbol"], message["type"]) == ("A1", "snapshot")
        assert (await bob.call("subscriptions", {}))["topics"]["PRICE:A1"]["state"] == "HALTED"
