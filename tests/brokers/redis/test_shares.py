"""Shares in Redis: what one org or publisher keeps leaves room for all others, over all nodes."""

import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from server.brokers import Address, RedisBroker, RedisConfig, RedisShares
from server.core.counters import Counters
from server.core.errors import LimitError
from server.core.limits.shares import NO_SHARES, SERVER, Owner, Quota, ShareLimits
from server.core.log.entries import Position
from server.core.log.idempotency import Claim
from tests.kit.clock import ManualClock
from tests.kit.redis.servers import RedisServer
from tests.kit.rigs.broker_cluster import BrokerNode

ANN, BOB, EVE = Owner("acme", "ann"), Owner("acme", "bob"), Owner("evil", "eve")
TOPICS = ShareLimits(Quota(6), Quota(4), Quota(2))
_prefixes = itertools.count(1)


class ShareCluster:
    """Creates nodes with the same shares on one Redis."""

    def __init__(self, url: str) -> None:
        self.clock = ManualClock()
        self.prefix = f"share{next(_prefixes)}"
        self._url = url

    @contextlib.asynccontextmanager
    async def node(
        self,
        topics: ShareLimits = NO_SHARES,
        *,
        histories: ShareLimits = NO_SHARES,
        claims: ShareLimits = NO_SHARES,
    ) -> AsyncIterator[RedisBroker]:
        """Run a node."""
        shares = RedisShares(topics, histories, claims, silent_seconds=60.0)
        config = RedisConfig(Address.parse(self._url), prefix=self.prefix, shares=shares)
        broker = RedisBroker(self.clock, Counters(), config)
        node = BrokerNode(broker)
        await node.start()
        try:
            yield broker
        finally:
            await node.stop()

    async def publish(self, broker: RedisBroker, topic: str, owner: Owner = ANN) -> str:
        """Count and publish a topic as a publisher does; "ok" or the code of the error."""
        try:
            await broker.add_topic(topic, owner)
        except LimitError as error:
            return error.code.value
        now_ms = int(self.clock.time() * 1000)
        await broker.publish(topic, b"{}", now_ms, owner=owner)
        return "ok"


@pytest.fixture
def cluster(shared_redis: RedisServer) -> ShareCluster:
    return ShareCluster(shared_redis.url)


async def test_topics_count_over_all_nodes_and_restarts(cluster: ShareCluster) -> None:
    async with cluster.node(TOPICS) as one, cluster.node(TOPICS) as other:
        assert await cluster.publish(one, "A") == "ok"
        assert await cluster.publish(other, "A") == "ok", "the same topic"
        assert await cluster.publish(other, "B") == "ok"
        assert await cluster.publish(one, "C") == "limit.share"
        assert await cluster.publish(one, "D", BOB) == "ok"
    async with cluster.node(TOPICS) as again:
        assert await cluster.publish(again, "E") == "limit.share"
        assert await cluster.publish(again, "A") == "ok"
        assert await cluster.publish(again, "F", EVE) == "ok"


async def test_org_and_all_are_bounded_and_feeds_only_by_the_total(cluster: ShareCluster) -> None:
    async with cluster.node(TOPICS) as node:
        publishers = [Owner("acme", user) for user in "abcde"]
        codes = [await cluster.publish(node, each.user_id, each) for each in publishers]
        assert codes == ["ok"] * 4 + ["limit.share"]
        codes = [await cluster.publish(node, f"feed{number}", SERVER) for number in range(3)]
        assert codes == ["ok", "ok", "server.overloaded"]


async def test_refused_topics_count_to_nobody(cluster: ShareCluster) -> None:
    limits = ShareLimits(Quota(6), Quota(3), Quota(2))
    async with cluster.node(limits) as node:
        codes = [await cluster.publish(node, f"A{number}") for number in range(20)]
        assert codes == ["ok"] * 2 + ["limit.share"] * 18
        codes = [await cluster.publish(node, f"B{number}", BOB) for number in range(20)]
        assert codes == ["ok"] + ["limit.share"] * 19
        assert await cluster.publish(node, "C", EVE) == "ok"
        cluster.clock.advance(61)
        assert await cluster.publish(node, "B1", BOB) == "ok", "its own share has room"


async def test_silent_topics_make_room_unless_a_node_is_subscribed(cluster: ShareCluster) -> None:
    async with cluster.node(TOPICS) as one, cluster.node(TOPICS) as other:
        for topic in ("A", "B"):
            assert await cluster.publish(one, topic) == "ok"
        await other.watch("A")
        cluster.clock.advance(61)
        assert await cluster.publish(one, "C") == "ok"
        assert (await one.latest("A")) is not None
        assert (await one.latest("B")) is None
        cluster.clock.advance(2)
        assert await cluster.publish(one, "D") == "limit.share"


async def test_topic_of_another_publisher_makes_room(cluster: ShareCluster) -> None:
    async with cluster.node(TOPICS) as node:
        for topic in ("A", "B"):
            assert await cluster.publish(node, topic) == "ok"
        assert await cluster.publish(node, "A", BOB) == "ok"
        assert await cluster.publish(node, "C") == "ok"
        assert (await node.latest("A")) is not None
        assert await cluster.publish(node, "D") == "limit.share"


async def test_sets_of_topics_expire(cluster: ShareCluster, shared_redis: RedisServer) -> None:
    async with cluster.node(TOPICS) as node:
        await cluster.publish(node, "A")
    with shared_redis.client() as client:
        sets = list(client.scan_iter(f"{cluster.prefix}:*topics"))
        assert len(sets) == 3
        assert all(client.pttl(each) > 0 for each in sets)


async def test_full_share_is_not_searched_again_at_once(
    cluster: ShareCluster, shared_redis: RedisServer
) -> None:
    async with cluster.node(TOPICS) as node:
        codes = [await cluster.publish(node, f"T{number}") for number in range(3)]
        assert codes == ["ok", "ok", "limit.share"]
        with shared_redis.client() as client:
            before = client.info("stats")["total_commands_processed"]
            for number in range(50):
                assert await cluster.publish(node, f"U{number}") == "limit.share"
            after = client.info("stats")["total_commands_processed"]
        # One call, with its three commands, and none that searches.
        assert after - before < 50 * 5


async def test_org_drops_its_own_longest_silent_stream(cluster: ShareCluster) -> None:
    histories = ShareLimits(Quota(), Quota(size_bytes=1_000), Quota())
    async with cluster.node(histories=histories) as node:
        now_ms = int(cluster.clock.time() * 1000)
        for topic, owner in (("kept", EVE), ("old", ANN), ("new", ANN)):
            for _ in range(2):
                data = b'{"x":"%b"}' % (b"x" * 200)
                await node.publish(topic, data, now_ms, in_history=True, owner=owner)
        await node.head("old")
        counts = {each: len(await node.before(each, None, 9)) for each in ("kept", "old", "new")}
        assert counts == {"kept": 2, "old": 0, "new": 2}
        head = await node.head("old")
        assert await node.since("old", Position(head.epoch, 0)) is None
        receipt = await node.publish("old", b"{}", now_ms, in_history=True, owner=ANN)
        assert receipt.position == Position(head.epoch, 3)


async def test_publisher_forgets_its_own_oldest_ids(cluster: ShareCluster) -> None:
    claims = ShareLimits(Quota(), Quota(), Quota(2))
    async with cluster.node(claims=claims) as node:
        kept = Claim("kept", b"d", EVE)
        await node.publish("A", b"{}", 1, claim=kept)
        mine = [Claim(f"id{number}", b"d", ANN) for number in range(4)]
        for claim in mine:
            await node.publish("A", b"{}", 1, claim=claim)
        assert await node.find("A", kept) is not None
        assert [await node.find("A", each) is not None for each in mine] == [
            False,
            False,
            True,
            True,
        ]


async def test_watched_topics_stay_whatever_server_of_a_cluster_counts(shards_url: str) -> None:
    cluster = ShareCluster(shards_url)
    names = [f"T{number}" for number in range(12)]
    bounds = ShareLimits(Quota(100), Quota(100), Quota(len(names)))
    async with cluster.node(bounds) as one, cluster.node(bounds) as other:
        for name in names:
            assert await cluster.publish(one, name) == "ok"
            await other.watch(name)
        cluster.clock.advance(120)
        assert await cluster.publish(one, "ANOTHER") == "limit.share"
        silent_since_ms = int(cluster.clock.time() * 1000) - 60_000
        for name in names:
            assert not await one.forget(name, silent_since_ms=silent_since_ms)
            assert await one.latest(name) is not None
        await other.unwatch(names[0])
        assert await one.forget(names[0], silent_since_ms=silent_since_ms)
