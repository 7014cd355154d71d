"""The pub/sub connection of a node: it is replaced at any moment without losing a subscription."""

import asyncio

import pytest

from server.brokers import RedisBroker
from server.brokers.redis.log.pubsub import PubSub
from tests.kit.clock import START
from tests.kit.redis.servers import RedisServer
from tests.kit.rigs.broker_cluster import BrokerCluster, BrokerNode

NOW_MS = int(START * 1000)


@pytest.fixture
def cluster(shared_redis: RedisServer) -> BrokerCluster:
    return BrokerCluster("redis", shared_redis.url)


def pubsub_of(node: BrokerNode) -> PubSub:
    """The pub/sub connection of a node."""
    assert isinstance(node.broker, RedisBroker)
    return node.broker._subscriber._pubsub


@pytest.mark.parametrize("turns", range(6))
async def test_reopen_right_after_a_subscribe_leaves_the_node_able_to_subscribe(
    cluster: BrokerCluster, turns: int
) -> None:
    async with cluster.running() as node:
        interrupted = asyncio.create_task(node.broker.watch("A"))
        for _ in range(turns):
            await asyncio.sleep(0)
        pubsub_of(node).reopen()
        await asyncio.wait([interrupted])
        await node.wait_until(lambda: node.states[-1])
        for channel in "AB":
            await node.broker.watch(channel)
            await node.broker.publish(channel, b"{}", NOW_MS, in_history=True)
        await node.wait_until(lambda: node.seqs("A") == node.seqs("B") == [1])
        assert node.counters.total("tasks.failed") == 0
