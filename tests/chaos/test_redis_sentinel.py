"""Sentinel promotes a replica under load: nothing that replicas acknowledged is lost."""

import asyncio
import contextlib
import os

import orjson
import pytest

from server.core.errors import FloorcastError
from server.core.log.entries import Entry
from tests.chaos.broker_rig import (
    CHANNELS,
    TIMEOUT_SECONDS,
    UNBOUNDED,
    BrokerPublisher,
    publishing,
)
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.redis.servers import ReplicatedPair, redis_pair
from tests.kit.rigs.broker_cluster import BrokerCluster, BrokerNode

ROUNDS = int(os.environ.get("FLOORCAST_FAULT_ROUNDS", "1"))


async def lost_messages(publisher: BrokerPublisher, node: BrokerNode) -> list[int]:
    """The acknowledged messages that the current master does not have."""
    lost = []
    for channel in CHANNELS:
        entries = await read_all(node, channel)
        kept = {orjson.loads(each.data)["n"] for each in entries}
        lost += [each for each in publisher.acknowledged[channel] if each not in kept]
    return lost


async def read_all(node: BrokerNode, channel: str) -> list[Entry]:
    """The history; the node may leave its server once more when the failover ends."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while True:
            with contextlib.suppress(FloorcastError):
                return await node.broker.before(channel, None, 1_000_000)
            await asyncio.sleep(0.05)


async def until_promoted(pair: ReplicatedPair) -> None:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while not pair.is_promoted:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["failover", "crash"])
async def test_failover_loses_nothing_that_replicas_acknowledged(way: str) -> None:
    for _ in range(ROUNDS):
        with redis_pair() as pair:
            cluster = BrokerCluster("redis", pair.url)
            async with (
                cluster.running(
                    UNBOUNDED, timeout_seconds=TIMEOUT_SECONDS, acknowledging_replicas=1
                ) as node,
                publishing(node) as publisher,
            ):
                await publisher.until_acknowledged()
                if way == "failover":
                    pair.fail_over()
                else:
                    pair.kill_master()
                await until_promoted(pair)
                await node.wait_until(lambda: False in node.states and node.states[-1])
                if way == "failover":
                    pair.follow_promoted()
                    async with asyncio.timeout(MAX_WAIT_SECONDS):
                        await publisher.until_acknowledged()
                assert await lost_messages(publisher, node) == []
                assert publisher.codes <= {"server.overloaded"}


async def test_node_leaves_the_old_master_as_soon_as_a_replica_is_promoted() -> None:
    for _ in range(ROUNDS):
        with redis_pair() as pair:
            cluster = BrokerCluster("redis", pair.url)
            async with (
                cluster.running(UNBOUNDED, timeout_seconds=TIMEOUT_SECONDS) as node,
                publishing(node) as publisher,
            ):
                await publisher.until_acknowledged()
                pair.fail_over()
                await until_promoted(pair)
                await node.wait_until(lambda: False in node.states and node.states[-1])
                async with asyncio.timeout(MAX_WAIT_SECONDS):
                    await publisher.until_acknowledged()
                assert await lost_messages(publisher, node) == []
