"""Tests that the topics of a feed are stale on all nodes as soon as it has failed."""

import asyncio
from typing import Any

from server.ports import Publishing
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.nodes import nodes

TRADE = {"trades": [{"id": 1, "price": "1", "qty": "1", "side": "buy", "ts": 1}]}


class FailingFeed:
    """Publishes a trade whenever the test lets it, and then fails."""

    def __init__(self) -> None:
        self.may_publish = asyncio.Event()
        self.must_fail = asyncio.Event()

    async def run(self, publishing: Publishing) -> None:
        await self.may_publish.wait()
        await publishing.publish("TRADES:A", TRADE)
        await self.must_fail.wait()
        self.must_fail.clear()
        self.may_publish.clear()
        raise ConnectionError("the exchange is down")


async def next_event(client: RawClient, name: str) -> Any:
    while True:
        event, body = await client.event()
        if event == name:
            return body


async def test_topics_of_a_dead_feed_are_stale_on_all_nodes(shared_redis: RedisServer) -> None:
    feed = FailingFeed()
    parts = [{"feed": feed}, {}]
    async with nodes(shared_redis, 2, lambda: parts.pop(0)) as (one, two):
        clients = [await RawClient.connect(node.port, node.token()) for node in (one, two)]
        for client in clients:
            await client.call("subscribe", {"topics": ["TRADES:A"]})
        feed.may_publish.set()
        for client in clients:
            assert (await next_event(client, "trades"))["seq"] == 1
        await until(lambda: one.server.feeds[0].is_live)
        feed.must_fail.set()
        # Trades have no timeout, and the clock of both nodes stands still.
        for client in clients:
            assert (await next_event(client, "status"))["state"] == "STALE"
        late = await RawClient.connect(two.port, two.token())
        reply = await late.call("subscribe", {"topics": ["TRADES:A"]})
        assert reply["topics"]["TRADES:A"]["state"] == "STALE"
        feed.may_publish.set()
        for client in clients:
            assert (await next_event(client, "status"))["state"] == "LIVE"
            assert (await next_event(client, "trades"))["seq"] == 2
        await until(lambda: not two.server.delivery.freshness._stale_feeds)
        for client in (*clients, late):
            client.cut()
