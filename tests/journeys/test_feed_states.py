"""Tests that the topics of a feed are stale on all nodes as soon as it, or its node, has died."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from floorcast.server import FeedEvent, Handlers
from server.brokers import Keys
from server.ports import Publishing
from server.tasks import cancel_and_wait
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.nodes import Node, nodes

TRADE = {"trades": [{"id": 1, "price": "1", "qty": "1", "side": "buy", "ts": 1}]}


class FailingFeed:
    """Publishes a trade of each topic whenever the test lets it, and then fails."""

    def __init__(self, *topics: str) -> None:
        self.topics = topics or ("TRADES:A",)
        self.may_publish = asyncio.Event()
        self.must_fail = asyncio.Event()

    async def run(self, publishing: Publishing) -> None:
        await self.may_publish.wait()
        for topic in self.topics:
            await publishing.publish(topic, TRADE)
        await self.must_fail.wait()
        self.must_fail.clear()
        self.may_publish.clear()
        raise ConnectionError("the exchange is down")


async def silence(node: Node) -> None:
    """Let a node no longer show that it lives."""
    occupancy: Any = node.server.backend.occupancy
    task, occupancy._task = occupancy._task, None
    await cancel_and_wait(task)


async def kill(node: Node) -> None:
    """Let a node and its feed fall silent, as after `kill -9`."""
    await silence(node)
    await node.server.stop_feed()


async def until_announced(redis: RedisServer, publishing: Mapping[Node, FailingFeed]) -> None:
    """Wait until Redis knows all topics of the feeds of these nodes, and no other feeds."""
    wanted = sorted(sorted(feed.topics) for feed in publishing.values())
    [prefix] = {node.prefix for node in publishing}
    key = Keys(prefix).occupancy() + b":feeds"
    with redis.client() as connected:
        client: Any = connected

        def announced() -> list[list[str]]:
            found = [orjson.loads(client.get(key + b":" + each)) for each in client.smembers(key)]
            return sorted(sorted(names) for each in found for names in each["feeds"].values())

        await until(lambda: len(announced()) == len(wanted))
        for node, feed in publishing.items():
            channels = node.server.feeds[0].publisher.channels
            await until(lambda feed=feed, channels=channels: set(channels) == set(feed.topics))
        # The first announcement may have had only some of them; the next one is due in a second.
        node.clock.advance(1.0)
        await until(lambda: announced() == wanted)


async def subscribe(node: Node, *topics: str) -> RawClient:
    client = await RawClient.connect(node.port, node.token())
    await client.call("subscribe", {"topics": list(topics)})
    return client


def is_stale(node: Node, topic: str) -> bool:
    channel = node.server.delivery.hub.channel(topic)
    assert channel is not None
    return channel.stale_since_ms is not None


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


async def test_topics_of_a_dead_node_are_stale_on_the_others(shared_redis: RedisServer) -> None:
    feed = FailingFeed()
    events: list[FeedEvent] = []
    handlers = Handlers(feed_stale=events.append)
    parts: list[dict[str, object]] = [
        {"feed": feed},
        {"handlers": handlers},
        {"handlers": handlers},
    ]
    async with nodes(shared_redis, 3, lambda: parts.pop(0)) as (one, *others):
        clients = [await subscribe(node, "TRADES:A") for node in others]
        feed.may_publish.set()
        for client in clients:
            assert (await next_event(client, "trades"))["seq"] == 1
        await until_announced(shared_redis, {one: feed})
        await kill(one)
        # Trades have no timeout, and the clock of the nodes stands still.
        for client in clients:
            assert (await next_event(client, "status"))["state"] == "STALE"
        await until(lambda: events)
        # The next message makes it live, from any publisher.
        await others[0].server.market.publishing.publish("TRADES:A", TRADE)
        for client in clients:
            assert (await next_event(client, "status"))["state"] == "LIVE"
            assert (await next_event(client, "trades"))["seq"] == 2
            client.cut()
        # One node alone finds it dead.
        [event] = events
        assert (event.topic_count, event.reason) == (
            1,
            f"its node {one.server.backend.cluster.node} has died",
        )


async def test_topic_that_a_living_node_publishes_too_is_not_stale(
    shared_redis: RedisServer,
) -> None:
    feeds = [FailingFeed("TRADES:A", "TRADES:B"), FailingFeed("TRADES:A")]
    parts = [*({"feed": feed} for feed in feeds), {}]
    async with nodes(shared_redis, 3, lambda: parts.pop(0)) as (one, two, three):
        client = await subscribe(three, "TRADES:A", "TRADES:B")
        for feed in feeds:
            feed.may_publish.set()
        await until_announced(shared_redis, {one: feeds[0], two: feeds[1]})
        await kill(one)
        assert (await next_event(client, "status"))["symbol"] == "B"
        assert not is_stale(three, "TRADES:A")
        # Nor is it for ever: nobody publishes it after this.
        await kill(two)
        status = await next_event(client, "status")
        assert (status["symbol"], status["state"]) == ("A", "STALE")
        client.cut()


async def test_topics_of_a_node_that_stops_are_not_stale(shared_redis: RedisServer) -> None:
    feeds = [FailingFeed("TRADES:A"), FailingFeed("TRADES:B")]
    parts = [*({"feed": feed} for feed in feeds), {}]
    async with nodes(shared_redis, 3, lambda: parts.pop(0)) as (stopping, dying, three):
        client = await subscribe(three, "TRADES:A", "TRADES:B")
        for feed in feeds:
            feed.may_publish.set()
        await until_announced(shared_redis, {stopping: feeds[0], dying: feeds[1]})
        await stopping.stop()
        # A death after it is noticed, so it would have been.
        await kill(dying)
        assert (await next_event(client, "status"))["symbol"] == "B"
        assert not is_stale(three, "TRADES:A")
        client.cut()


async def test_node_that_was_taken_for_dead_announces_its_feed_again(
    shared_redis: RedisServer,
) -> None:
    feed = FailingFeed()
    parts = [{"feed": feed}, {}]
    async with nodes(shared_redis, 2, lambda: parts.pop(0)) as (slow, other):
        client = await subscribe(other, "TRADES:A")
        feed.may_publish.set()
        await until_announced(shared_redis, {slow: feed})
        for _ in range(2):
            await silence(slow)
            assert (await next_event(client, "status"))["state"] == "STALE"
            server = slow.server
            await slow.server.backend.occupancy.start(
                server.lifecycle.on_change, server.market.wills.on_due
            )
            await until_announced(shared_redis, {slow: feed})
            await until(lambda: not other.server.delivery.freshness._stale_feeds)
            await server.market.publishing.publish("TRADES:A", TRADE)
            assert (await next_event(client, "status"))["state"] == "LIVE"
        client.cut()


async def test_death_is_noticed_though_a_node_of_another_release_saw_it_first(
    shared_redis: RedisServer,
) -> None:
    feed = FailingFeed()
    parts = [{"feed": feed}, {}]
    async with nodes(shared_redis, 2, lambda: parts.pop(0)) as (one, two):
        client = await subscribe(two, "TRADES:A")
        feed.may_publish.set()
        await until_announced(shared_redis, {one: feed})
        await kill(one)
        key = Keys(two.prefix).occupancy()
        with shared_redis.client() as connected:
            redis: Any = connected
            (lease,) = redis.smembers(key + b":feeds")
            announced = redis.get(key + b":feeds:" + lease)
            redis.set(key + b":feeds:" + lease, announced.replace(b"{", b'{"new":1,', 1))
            # What the other release may announce, and no announcement at all.
            redis.set(key + b":feeds:malformed", b'{"feeds": 1}')
            redis.sadd(key + b":feeds", "malformed", "missing")
            redis.hdel(key + b":beats", lease)
            assert (await next_event(client, "status"))["state"] == "STALE"
            await until(lambda: not redis.scard(key + b":feeds"))
        client.cut()
