"""Sessions have history bounds of their own, with each backend."""

import asyncio
from collections.abc import Sequence

from server.core.log.entries import Entry, Receipt
from server.core.log.history import HistoryBounds
from server.core.sessions.records import session_channel
from tests.kit.rigs.broker_cluster import BrokerCluster, BrokerNode

ROOM, TOPIC = session_channel("acme", "room"), "TRADES:A"
DATA = b'{"text":"' + b"x" * 80 + b'"}'


async def publish(
    cluster: BrokerCluster, node: BrokerNode, channel: str, count: int
) -> list[Receipt]:
    now_ms = int(cluster.clock.time() * 1000)
    return await asyncio.gather(
        *(
            node.broker.publish(channel, b'{"n":%d}' % n, now_ms, in_history=True)
            for n in range(count)
        )
    )


def seqs(entries: Sequence[Entry]) -> list[int]:
    return [each.position.seq for each in entries]


async def test_session_keeps_more_and_longer_than_topics(cluster: BrokerCluster) -> None:
    cluster.session_history = HistoryBounds(messages=2_000, seconds=1e6)
    async with cluster.running() as node:
        for channel in (ROOM, TOPIC):
            await publish(cluster, node, channel, 2_100)
        # As far as Redis knows, whose clock is another one, no key has expired.
        cluster.clock.advance(90_000)
        assert seqs(await node.broker.before(ROOM, None, 10_000)) == [*range(101, 2_101)]
        assert seqs(await node.broker.before(ROOM, 201, 100)) == [*range(101, 201)]
        assert seqs(await node.broker.before(TOPIC, None, 10_000)) == [2_100]


async def test_session_history_is_bounded_in_bytes(cluster: BrokerCluster) -> None:
    cluster.session_history = HistoryBounds(bytes=5_000, seconds=1e6)
    async with cluster.running() as node:
        for _ in range(100):
            await node.broker.publish(ROOM, DATA, 1_800_000_000_000, in_history=True)
        kept = await node.broker.before(ROOM, None, 1000)
        assert 15 <= len(kept) <= 5_000 // len(DATA)
        assert seqs(kept)[-1] == 100


async def test_client_far_behind_is_not_sent_a_whole_session(cluster: BrokerCluster) -> None:
    cluster.session_history = HistoryBounds(replay_messages=10, replay_bytes=100)
    async with cluster.running() as node:
        receipts = await publish(cluster, node, ROOM, 30)
        assert await node.broker.since(ROOM, receipts[18].position) is None, "too many"
        missed = await node.broker.since(ROOM, receipts[19].position)
        assert missed is not None
        assert seqs(missed) == [*range(21, 31)]
        big = await node.broker.publish(ROOM, DATA, 1_800_000_000_000, in_history=True)
        assert await node.broker.since(ROOM, receipts[28].position) == [
            *await node.broker.before(ROOM, big.position.seq + 1, 2)
        ]
        await node.broker.publish(ROOM, DATA, 1_800_000_000_000, in_history=True)
        assert await node.broker.since(ROOM, receipts[29].position) is None, "too large"
        assert await node.broker.since(ROOM, big.position) is not None
