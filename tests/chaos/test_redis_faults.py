"""Test faults of Redis: no acknowledged message is lost, no call hangs, nodes recover."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson

from server.core.log.entries import Entry, Reset
from tests.chaos.broker_rig import (
    CHANNELS,
    TIMEOUT_SECONDS,
    BrokerPublisher,
    publishing,
    writer_and_reader,
)
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.rigs.broker_cluster import BrokerCluster, BrokerNode
from tests.kit.server.in_process import PRICE, running

# CI runs a short pause; set the variable for a long one.
PAUSE_SECONDS = float(os.environ.get("FLOORCAST_FAULT_SECONDS", "1.5"))
# A call that hangs takes far longer than this; a busy machine does not.
MAX_REPLY_SECONDS = TIMEOUT_SECONDS + 10.0


@dataclass(slots=True)
class FaultRig:
    """A private Redis, a publisher on one node and a subscriber on another."""

    redis: RedisServer
    cluster: BrokerCluster
    publisher: BrokerPublisher
    reader: BrokerNode

    async def until_noticed(self) -> None:
        """Wait until the reader's broker is down and a publish was refused."""
        await self.reader.wait_until(
            lambda: not self.reader.states[-1] and bool(self.publisher.refused)
        )

    async def until_recovered(self) -> None:
        """Wait until publishing and reading work again, within the recovery time."""
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await self.publisher.until_acknowledged()
            count = len(self.reader.entries)
            await until(lambda: len(self.reader.entries) > count and self.reader.states[-1])

    async def until_caught_up(self) -> None:
        """Wait until the reader has the last acknowledged message of each channel."""
        lasts = {
            channel: receipts[max(receipts)].position
            for channel, receipts in self.publisher.acknowledged.items()
        }
        await self.reader.wait_until(
            lambda: all(
                any(
                    each.channel == channel and each.position == last
                    for each in self.reader.entries
                )
                for channel, last in lasts.items()
            )
        )

    def check(self, *, has_loss: bool) -> None:
        """Check for gaps, duplicates and lost acknowledged messages between resets."""
        assert self.publisher.slowest_seconds < MAX_REPLY_SECONDS
        assert self.publisher.codes <= {"server.overloaded"}
        assert bool(self.reader.resets) == has_loss
        for channel in CHANNELS:
            numbers = self._numbers(channel)
            assert len(numbers) == len(set(numbers)), "a message came twice"
            epochs = {each.head.epoch for each in self.reader.resets if each.channel == channel}
            for number, receipt in self.publisher.acknowledged[channel].items():
                if not has_loss or receipt.position.epoch in epochs:
                    assert number in numbers, (channel, number, receipt)

    def _numbers(self, channel: str) -> list[int]:
        numbers, last = [], None
        for each in self.reader.deliveries:
            if each.channel != channel:
                continue
            if isinstance(each, Reset):
                last = each.head
                continue
            assert isinstance(each, Entry)
            if last is not None:
                assert each.position.epoch == last.epoch
                assert each.position.seq == last.seq + 1
            last = each.position
            numbers.append(orjson.loads(each.data)["n"])
        return numbers


@contextlib.asynccontextmanager
async def fault_rig(timeout_seconds: float = TIMEOUT_SECONDS) -> AsyncIterator[FaultRig]:
    """Publish and read until the block ends.

    A test that allows no refused publish passes a timeout that even a busy machine meets.
    """
    with redis_server() as redis:
        cluster = BrokerCluster("redis", redis.url)
        async with writer_and_reader(cluster, timeout_seconds=timeout_seconds) as (writer, reader):
            for channel in CHANNELS:
                await reader.broker.watch(channel)
            async with publishing(writer) as publisher:
                await reader.wait_until(lambda: len(reader.entries) > 100)
                yield FaultRig(redis, cluster, publisher, reader)


async def check_recovery(rig: FaultRig, *, has_loss: bool = False) -> None:
    """Wait for recovery, read everything and check it."""
    await rig.until_recovered()
    await asyncio.sleep(0.05)
    await rig.until_caught_up()
    rig.check(has_loss=has_loss)


async def test_restart_with_lost_data() -> None:
    async with fault_rig() as rig:
        rig.redis.kill()
        await rig.until_noticed()
        rig.redis.start()
        await check_recovery(rig, has_loss=True)
        assert rig.reader.states == [True, False, True]


async def test_pause() -> None:
    async with fault_rig() as rig:
        rig.redis.pause()
        await asyncio.sleep(PAUSE_SECONDS)
        await rig.until_noticed()
        rig.redis.resume()
        await check_recovery(rig)


async def test_pause_shorter_than_the_timeout() -> None:
    async with fault_rig(MAX_WAIT_SECONDS) as rig:
        rig.redis.pause()
        await asyncio.sleep(TIMEOUT_SECONDS / 4)
        rig.redis.resume()
        await check_recovery(rig)
        assert rig.publisher.refused == 0


async def test_pub_sub_connections_are_killed() -> None:
    async with fault_rig(MAX_WAIT_SECONDS) as rig:
        for _ in range(5):
            with rig.redis.client() as client:
                client.client_kill_filter(_type="pubsub")
            await asyncio.sleep(0.05)
        await check_recovery(rig)
        assert rig.publisher.refused == 0, "publishing does not use pub/sub"


async def test_every_connection_is_killed() -> None:
    async with fault_rig() as rig:
        with rig.redis.client() as client:
            client.client_kill_filter(_type="pubsub")
            client.client_kill_filter(_type="normal", skipme=True)
        await check_recovery(rig)


async def test_memory_is_full() -> None:
    async with fault_rig() as rig:
        with rig.redis.client() as client:
            client.config_set("maxmemory", 1)
            await rig.reader.wait_until(lambda: bool(rig.publisher.refused))
            [channel, *_] = CHANNELS
            assert await rig.reader.broker.latest(channel) is not None, "reading still works"
            assert rig.reader.states == [True]
            client.config_set("maxmemory", 0)
        await check_recovery(rig)


async def test_foreign_33_megabyte_messages() -> None:
    async with fault_rig() as rig:
        with rig.redis.client() as client:
            for channel in CHANNELS:
                client.publish(f"{rig.cluster.prefix}:{{{channel}}}", b"x" * 33_000_000)
        await check_recovery(rig)
        lost, malformed = map(rig.reader.counters.total, ("broker.lost", "broker.strange"))
        assert lost or malformed, "the node received it, or Redis closed the connection"


async def test_everything_is_flushed() -> None:
    async with fault_rig() as rig:
        with rig.redis.client() as client:
            client.flushall()
        await check_recovery(rig, has_loss=True)


async def test_scripts_are_flushed() -> None:
    async with fault_rig(MAX_WAIT_SECONDS) as rig:
        with rig.redis.client() as client:
            client.script_flush()
        await check_recovery(rig)
        assert rig.publisher.refused == 0


async def test_node_detects_a_lost_pub_sub_subscription() -> None:
    async with fault_rig() as rig:
        pubsub = rig.reader.broker._subscriber._pubsub  # type: ignore[attr-defined]
        connection = pubsub._connection
        await connection.send_packed_command(connection.pack_command("UNSUBSCRIBE"))
        # Until then messages may still come.
        await until(lambda: rig.reader.counters.total("broker.deaf"))
        await check_recovery(rig)
        assert rig.reader.counters.total("broker.deaf") == 1


async def test_clients_get_status_when_the_broker_fails_and_recovers() -> None:
    with redis_server() as redis:
        settings = {"broker.url": redis.url, "broker.timeout_seconds": TIMEOUT_SECONDS}
        async with running(settings) as node:
            client = await RawClient.connect(node.port, node.token())
            publisher = await RawClient.connect(node.port, node.token())
            await client.call("subscribe", {"topics": ["PRICE:A", "TRADES:A"]})
            message = {"topic": "PRICE:A", "data": PRICE}
            assert (await publisher.call("publish", {"messages": [message]}))["ok"]
            while (await client.event())[0] != "price":
                continue  # the node must have the price before its Redis dies
            redis.kill()
            await until_states(client, {"PRICE": "STALE", "TRADES": "STALE"})
            began = time.monotonic()
            answer = await client.call("publish", {"messages": [message]})
            assert time.monotonic() - began < MAX_REPLY_SECONDS
            assert answer["error"]["code"] == "server.overloaded"
            assert answer["error"]["retry_after_ms"]
            answer = await client.call("subscribe", {"topics": ["PRICE:B"]})
            assert answer["topics"]["PRICE:B"]["error"]["code"] == "server.overloaded"
            answer = await client.call("subscribe", {"topics": ["PRICE:A"]})
            assert answer["topics"]["PRICE:A"]["snapshot"]["data"] == PRICE, (
                "the known state is served"
            )
            redis.start()
            await until_states(client, {"PRICE": "LIVE", "TRADES": "LIVE"})
            answer = await client.call("publish", {"messages": [message]})
            assert answer["positions"][0]["seq"] == 1, "the history was lost"
            for each in (client, publisher):
                each.cut()
            await node.until_empty()


async def test_paused_redis_refuses_each_topic() -> None:
    with redis_server() as redis:
        settings = {"broker.url": redis.url, "broker.timeout_seconds": TIMEOUT_SECONDS}
        async with running(settings) as node:
            client = await RawClient.connect(node.port, node.token())
            member = await SessionClient.connect(node, "ann", "known")
            redis.pause()
            began = time.monotonic()
            topics = [f"{stream}:S{n}" for stream in ("PRICE", "TRADES") for n in range(100)]
            answer = await client.call("subscribe", {"topics": topics})
            assert time.monotonic() - began < 2 * MAX_REPLY_SECONDS, (
                "the topics share one time limit"
            )
            assert list(answer["topics"]) == topics
            for topic in answer["topics"].values():
                assert topic["status"] == "ERROR"
                assert topic["error"]["code"] == "server.overloaded"
                assert topic["error"]["retry_after_ms"] > 0
            began = time.monotonic()
            answers = [
                await member.call("join", session_id="new"),
                await member.call("send", session_id="known", data={}),
                await member.call("join", session_id="known", since={"epoch": "e", "seq": 1}),
                await member.call("participants", session_id="known"),
            ]
            assert time.monotonic() - began < 4 * MAX_REPLY_SECONDS
            assert [each["error"]["code"] for each in answers] == ["server.overloaded"] * 4
            redis.resume()
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while answer["topics"][topics[0]].get("epoch") is None:
                    await asyncio.sleep(0.05)
                    answer = await client.call("subscribe", {"topics": topics[:1]})
            answer = await client.call("subscribe", {"topics": topics})
            assert {topic["status"] for topic in answer["topics"].values()} == {"CONNECTED"}
            answer = await member.call("participants", session_id="known")
            assert answer["participant_count"] == 1, "the member is still joined"
            assert (await member.call("send", session_id="known", data={}))["ok"]
            assert (await member.call("join", session_id="new"))["ok"]
            for each in (client, member):
                each.cut()
            await node.until_empty()


async def test_lost_history_resets_its_subscribers() -> None:
    with redis_server() as redis:
        settings = {"broker.url": redis.url, "broker.timeout_seconds": TIMEOUT_SECONDS}
        async with running(settings) as node:
            reader = await RawClient.connect(node.port, node.token())
            publisher = await RawClient.connect(node.port, node.token())
            message = {"topic": "PRICE:A", "data": PRICE}
            await publisher.call("publish", {"messages": [message] * 3})
            answer = await reader.call("subscribe", {"topics": ["PRICE:A"]})
            assert answer["topics"]["PRICE:A"]["seq"] == 3
            redis.kill()
            redis.start()
            states: list[str] = []
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while states[-1:] != ["LIVE"] or "RESYNC" not in states:
                    event, body = await reader.event()
                    states.append(body["state"])
            assert states[0] == "STALE"
            answer = await publisher.call("publish", {"messages": [message]})
            event, body = await reader.event()
            assert event == "price"
            assert (body["seq"], body["prev"], body["data"]) == (1, 0, PRICE)
            assert answer["positions"] == [{"epoch": body["epoch"], "seq": 1}]
            for each in (reader, publisher):
                each.cut()
            await node.until_empty()


async def until_states(client: RawClient, wanted: dict[str, str]) -> None:
    """Wait until the last status of each stream is as wanted."""
    known: dict[str, str] = {}
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while known != wanted:
            event, body = await client.event()
            if event == "status":
                known[body["stream"]] = body["state"]
