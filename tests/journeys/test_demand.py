"""Tests that a feed publishes what clients of any node listen to, and nothing else."""

from typing import Any

from server.ports import Publishing
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.nodes import nodes

PRICE = {"bid": "1", "ask": "2", "last": "1", "volume": "0"}


class VenueFeed:
    """Publishes one price of each topic that becomes wanted."""

    def __init__(self) -> None:
        self.wanted: frozenset[str] = frozenset()

    async def run(self, publishing: Publishing) -> None:
        for symbol in ("BTC", "BNB", "ETH"):
            await publishing.set_instrument(symbol, {"tick_size": "0.1"})
        async for topics in publishing.demand(grace_seconds=0):
            for topic in sorted(topics - self.wanted):
                await publishing.publish(topic, PRICE)
            self.wanted = topics


async def next_price(client: RawClient) -> Any:
    while True:
        event, body = await client.event()
        if event == "price":
            return body


async def test_feed_serves_the_demand_of_another_node(shared_redis: RedisServer) -> None:
    feed = VenueFeed()
    parts = [{"feed": feed}, {}]
    async with nodes(shared_redis, 2, lambda: parts.pop(0)) as (one, two):
        ann = await RawClient.connect(two.port, two.token())
        await ann.call("subscribe", {"topics": ["PRICE:B*"]})
        prices = [await next_price(ann) for _ in range(2)]
        assert {each["symbol"] for each in prices} == {"BTC", "BNB"}
        assert feed.wanted == {"PRICE:BTC", "PRICE:BNB"}
        bob = await RawClient.connect(one.port, one.token())
        await bob.call("subscribe", {"topics": ["PRICE:ETH"]})
        assert (await next_price(bob))["symbol"] == "ETH"
        await ann.call("unsubscribe", {"topics": ["PRICE:B*"]})
        await until(lambda: feed.wanted == {"PRICE:ETH"})
        for client in (ann, bob):
            client.cut()
