"""Test a Redis that returns to an older state: no position is ever used for two messages.

Either a replica that was cut off from its master is promoted, or a server restarts from an older
snapshot. Messages after that moment are lost, which a new epoch must show.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import pytest

from server.core.errors import FloorcastError, RequestError
from server.core.log.entries import Entry, Position, Reset
from server.core.log.idempotency import Claim
from server.services import PublishingConfig, PublishingService
from tests.chaos.broker_rig import (
    CHANNELS,
    NOW_MS,
    publishing,
    writer_and_reader,
)
from tests.kit.clock import ManualClock
from tests.kit.message_log import MessageLog, PositionKey
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.redis.servers import RedisServer, ReplicatedPair, redis_pair, redis_server
from tests.kit.rigs.broker_cluster import BrokerCluster, BrokerNode

KINDS = ("failover", "restart")


@dataclass
class Failover:
    """A replica is promoted."""

    pair: ReplicatedPair

    @property
    def url(self) -> str:
        return self.pair.url

    def save(self) -> None:
        """Lose everything written from now on with the next crash."""
        self.pair.disconnect_replica()

    async def crash(self) -> None:
        """Kill the master, and return when the replica is promoted."""
        self.pair.kill_master()
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while not self.pair.is_promoted:
                await asyncio.sleep(0.02)


@dataclass
class Restart:
    """The same server restarts from an older snapshot."""

    server: RedisServer

    @property
    def url(self) -> str:
        return self.server.url

    def save(self) -> None:
        with self.server.client() as client:
            client.save()

    async def crash(self) -> None:
        self.server.kill()
        self.server.start()


RollbackRedis = Failover | Restart


@contextlib.contextmanager
def rollback_redis(kind: str) -> Iterator[RollbackRedis]:
    if kind == "failover":
        with redis_pair() as pair:
            yield Failover(pair)
    else:
        with redis_server() as server:
            yield Restart(server)


@pytest.fixture(name="redis", params=KINDS)
def new_redis(request: pytest.FixtureRequest) -> Iterator[RollbackRedis]:
    """A private Redis for each test."""
    with rollback_redis(request.param) as redis:
        yield redis


async def until_reachable(*nodes: BrokerNode) -> None:
    """Wait until the brokers are up and reach Redis."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        for node in nodes:
            while not (node.states[-1] and await is_reachable(node)):
                await asyncio.sleep(0.005)


async def is_reachable(node: BrokerNode) -> bool:
    """Whether a command succeeds; an idle connection may be dead without notice."""
    try:
        await node.broker.head("Z")
    except FloorcastError:
        return False
    return True


async def publish(node: BrokerNode, first: int, last: int, suffix: str = "") -> list[Position]:
    """Publish numbers in order."""
    return [
        (
            await node.broker.publish(
                "A", b'{"n":"%d%b"}' % (n, suffix.encode()), NOW_MS, in_history=True
            )
        ).position
        for n in range(first, last + 1)
    ]


async def roll_back(redis: RollbackRedis, *nodes: BrokerNode) -> None:
    """Crash Redis back to its older state, and wait until all nodes have recovered."""
    await redis.crash()
    for node in nodes:
        await node.wait_until(lambda node=node: False in node.states)  # type: ignore[misc]
    await until_reachable(*nodes)


def summarize(events: list[Entry | Reset]) -> list[str | tuple[str, int]]:
    """The numbers that a node received, and its resets as ("reset", seq)."""
    return [
        ("reset", each.head.seq) if isinstance(each, Reset) else orjson.loads(each.data)["n"]
        for each in events
    ]


def key_of(position: Position) -> PositionKey:
    return position.epoch, position.seq


@pytest.mark.parametrize("has_loss", [True, False])
async def test_rollback_under_load_never_reuses_a_position(
    redis: RollbackRedis, has_loss: bool
) -> None:
    async with writer_and_reader(BrokerCluster("redis", redis.url)) as (writer, reader):
        for channel in CHANNELS:
            await reader.broker.watch(channel)
        async with publishing(writer) as publisher:
            await reader.wait_until(lambda: len(reader.entries) > 100)
            if has_loss or isinstance(redis, Restart):
                redis.save()
            await asyncio.sleep(0.3 if has_loss else 0)
            await redis.crash()
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await publisher.until_acknowledged()
                await until_reachable(reader)
            counts = {channel: len(each) for channel, each in publisher.acknowledged.items()}
            await reader.wait_until(
                lambda: all(
                    len(publisher.acknowledged[each]) > counts[each] + 10 for each in CHANNELS
                )
            )
        assert publisher.codes <= {"server.overloaded"}
        lasts = [receipts[max(receipts)] for receipts in publisher.acknowledged.values()]
        await reader.wait_until(lambda: {each.position for each in lasts} <= _positions(reader))
        logs = {channel: MessageLog(channel) for channel in CHANNELS}
        for channel, receipts in publisher.acknowledged.items():
            for number, receipt in receipts.items():
                logs[channel].record(key_of(receipt.position), b'{"n":%d}' % number)
        for entry in reader.entries:
            logs[entry.channel].record(key_of(entry.position), entry.data)
        for channel, receipts in publisher.acknowledged.items():
            _check_order([each for each in reader.deliveries if each.channel == channel])
            received = {each.position for each in reader.entries if each.channel == channel}
            kept = await reader.broker.before(channel, None, 1_000_000)
            # The very last message may be unacknowledged.
            assert {each.position for each in kept[:-1]} <= received
            assert [each.position.seq for each in kept] == list(range(1, len(kept) + 1))
            if not has_loss and isinstance(redis, Failover):
                assert {each.position for each in kept} >= {
                    each.position for each in receipts.values()
                }, "the replica kept every acknowledged message"


def _positions(node: BrokerNode) -> set[Position]:
    return {each.position for each in node.entries}


def _check_order(events: list[Entry | Reset]) -> None:
    last: Position | None = None
    for each in events:
        if isinstance(each, Reset):
            last = each.head
            continue
        if last is not None:
            assert each.position == Position(last.epoch, last.seq + 1)
        last = each.position


async def test_watcher_gets_a_reset_and_the_replacing_messages(
    redis: RollbackRedis,
) -> None:
    async with writer_and_reader(BrokerCluster("redis", redis.url)) as (writer, reader):
        await reader.broker.watch("A")
        await publish(writer, 1, 3)
        redis.save()
        [*_, lost] = await publish(writer, 4, 5, "lost")
        await reader.wait_for_entries(5)
        await roll_back(redis, writer, reader)
        [first, *_] = await publish(writer, 4, 8, "new")
        assert first == Position(first.epoch, 4)
        assert first.epoch != lost.epoch
        await reader.wait_until(lambda: len(reader.entries) >= 10)
        assert summarize(reader.deliveries) == [
            *("1", "2", "3", "4lost", "5lost"),
            ("reset", 3),
            *("4new", "5new", "6new", "7new", "8new"),
        ]


async def test_lost_position_is_not_resumed(
    redis: RollbackRedis,
) -> None:
    async with writer_and_reader(BrokerCluster("redis", redis.url)) as (writer, reader):
        await publish(writer, 1, 3)
        redis.save()
        [*_, lost] = await publish(writer, 4, 5, "lost")
        await roll_back(redis, writer, reader)
        # No node watches the channel, so none knows that more messages existed.
        [*_, last] = await publish(writer, 4, 8, "new")
        assert await reader.broker.since("A", lost) is None
        assert await reader.broker.head("A") == last
        entries = await reader.broker.since("A", Position(last.epoch, 0))
        assert [each.position.seq for each in entries or ()] == [4, 5, 6, 7, 8], (
            "only the new epoch"
        )
        kept = await reader.broker.before("A", None, 10)
        assert summarize(list(kept)) == ["1", "2", "3", "4new", "5new", "6new", "7new", "8new"]


async def test_reset_carries_the_restored_state(
    redis: RollbackRedis,
) -> None:
    async with writer_and_reader(BrokerCluster("redis", redis.url)) as (writer, reader):
        await reader.broker.watch("A")
        await publish(writer, 1, 3)
        redis.save()
        await publish(writer, 4, 5, "lost")
        await reader.wait_for_entries(5)
        await roll_back(redis, writer, reader)
        [reset] = reader.resets
        latest = await reader.broker.latest("A")
        assert latest is not None
        assert orjson.loads(latest.data) == {"n": "3"}
        assert reset == Reset("A", latest.position, latest)
        assert latest.position == await writer.broker.head("A")


async def test_republished_message_keeps_its_position_if_it_survived(
    redis: RollbackRedis,
) -> None:
    claims = Claim("kept", b"one"), Claim("lost", b"other")
    async with writer_and_reader(BrokerCluster("redis", redis.url)) as (writer, reader):
        kept, lost = claims
        kept_at = (
            await writer.broker.publish("A", b"{}", NOW_MS, claim=kept, in_history=True)
        ).position
        redis.save()
        lost_at = (
            await writer.broker.publish("A", b'{"n":2}', NOW_MS, claim=lost, in_history=True)
        ).position
        await roll_back(redis, writer, reader)
        for _ in range(2):
            repeated = await reader.broker.publish("A", b"{}", NOW_MS, claim=kept, in_history=True)
            assert repeated.position == kept_at
        repeated = await reader.broker.publish("A", b'{"n":2}', NOW_MS, claim=lost, in_history=True)
        assert repeated.position.seq == lost_at.seq
        assert repeated.position.epoch != lost_at.epoch
        assert len(await reader.broker.before("A", None, 10)) == 2


async def test_book_continues_from_the_restored_state(redis: RollbackRedis) -> None:
    def book(*prices: bytes) -> bytes:
        levels = b",".join(b'["%b","1"]' % price for price in prices)
        return b'{"bids":[%b],"asks":[],"checksum":1}' % levels

    async with writer_and_reader(BrokerCluster("redis", redis.url)) as (writer, reader):
        await reader.broker.watch("A")
        await writer.broker.publish("A", book(b"1"), NOW_MS, full_state=lambda: book(b"1"))
        await writer.broker.publish("A", book(b"2"), NOW_MS, full_state=lambda: book(b"1", b"2"))
        redis.save()
        lost = await writer.broker.publish("A", book(b"9"), NOW_MS, full_state=lambda: book(b"9"))
        await reader.wait_for_entries(3)
        await roll_back(redis, writer, reader)
        with pytest.raises(FloorcastError):
            # The publisher must read the restored state first.
            await writer.broker.publish(
                "A", book(b"3"), NOW_MS, full_state=lambda: book(b"3"), expected_head=lost.position
            )
        [reset] = reader.resets
        assert reset.latest is not None
        assert [each[0] for each in orjson.loads(reset.latest.data)["bids"]] == ["2", "1"]
        assert reset.head == Position(reset.head.epoch, 2)
        await writer.broker.publish(
            "A",
            book(b"3"),
            NOW_MS,
            full_state=lambda: book(b"3", b"2", b"1"),
            expected_head=reset.head,
        )
        await reader.wait_for_entries(4)
        latest = await reader.broker.latest("A")
        assert latest is not None
        assert [each[0] for each in orjson.loads(latest.data)["bids"]] == ["3", "2", "1"]


async def test_book_needs_a_snapshot_after_a_rollback(redis: RollbackRedis) -> None:
    topic = "ORDERBOOK:A"
    async with writer_and_reader(BrokerCluster("redis", redis.url)) as nodes:
        one, other = (
            PublishingService(PublishingConfig(), node.broker, ManualClock()) for node in nodes
        )
        await one.publish(topic, {"bids": [["1", "1"]], "asks": []}, kind="snapshot")
        await other.publish(topic, {"bids": [["2", "1"]], "asks": []})
        redis.save()
        await one.publish(topic, {"bids": [["3", "1"]], "asks": []})
        await roll_back(redis, *nodes)
        for service in (one, other, one):
            with pytest.raises(RequestError) as refused:
                await service.publish(topic, {"bids": [["4", "1"]], "asks": []})
            assert refused.value.code == "publish.snapshot_required"
        await other.publish(topic, {"bids": [["3", "1"]], "asks": []}, kind="snapshot")
        await one.publish(topic, {"bids": [["4", "1"]], "asks": []})
        latest = await nodes[1].broker.latest(topic)
        assert latest is not None
        assert [each[0] for each in orjson.loads(latest.data)["bids"]] == ["4", "3"]


async def test_node_leaves_a_demoted_master() -> None:
    with redis_pair() as pair:
        async with writer_and_reader(BrokerCluster("redis", pair.url)) as (writer, reader):
            await publish(writer, 1, 3)
            pair.demote()
            with pytest.raises(FloorcastError) as refused:
                await publish(writer, 4, 4)
            assert refused.value.retry_after_ms is not None
            await writer.wait_until(lambda: False in writer.states)
            pair.reinstate()
            await until_reachable(writer, reader)
            assert (await publish(writer, 4, 4))[0].seq == 4


async def test_repeated_crashes_never_reuse_a_position() -> None:
    with rollback_redis("restart") as redis:
        async with writer_and_reader(BrokerCluster("redis", redis.url)) as (writer, reader):
            await reader.broker.watch("A")
            log = MessageLog("A")
            for run in range(6):
                redis.save()
                for n in range(3):
                    data = b'{"n":"%d/%d"}' % (run, n)
                    receipt = await writer.broker.publish("A", data, NOW_MS, in_history=True)
                    log.record(key_of(receipt.position), data)
                await reader.wait_until(lambda last=receipt.position: last in _positions(reader))  # type: ignore[misc]
                reader.states.clear()
                writer.states.clear()
                await roll_back(redis, writer, reader)
            assert len(log.messages) == 18
            _check_order(reader.deliveries)
            assert len(reader.resets) == 6
            seqs = {seq for _, seq in log.messages}
            assert seqs == {1, 2, 3}, "every crash lost the messages after the snapshot"
