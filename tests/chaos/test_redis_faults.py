"""What Redis may do to us: nothing acknowledged is lost, nobody waits, and it heals by itself."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson

from server.core.errors import FloorcastError
from server.core.log.entries import Entry, Receipt, Reset
from server.core.log.idempotency import Claim
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.clock import START
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.rigs.broker_cluster import Bounds, BrokerCluster, BrokerNode
from tests.kit.server.in_process import PRICE, running

# CI looks at a short pause; the long one is for who has the time.
PAUSE_SECONDS = float(os.environ.get("FLOORCAST_FAULT_SECONDS", "1.5"))
TIMEOUT_SECONDS = 1.0
# Both nodes, publisher and reader share one process and its loop, which 33 MB hold up as well.
MAX_REPLY_SECONDS = TIMEOUT_SECONDS + 2.0
RECOVERY_SECONDS = 5.0
CHANNELS = ("A", "B", "C")
# More than is published in any of this: only what Redis loses is lost.
UNBOUNDED = Bounds(messages=1_000_000, bytes=2**30)
NOW_MS = int(START * 1000)


@dataclass(slots=True)
class BrokerPublisher:
    """A publisher that asks again until it is told where its message went."""

    node: BrokerNode
    # What was acknowledged, by channel: the number of the message and where it is.
    acknowledged: dict[str, dict[int, Receipt]] = field(
        default_factory=lambda: {channel: {} for channel in CHANNELS}
    )
    refused: int = 0
    codes: set[str] = field(default_factory=set)
    slowest_seconds: float = 0.0
    last_at: float = 0.0

    async def publish_all(self) -> None:
        """Publish to every channel until cancelled."""
        await asyncio.gather(*map(self._publish_to, CHANNELS))

    async def _publish_to(self, channel: str) -> None:
        number = 0
        while True:
            number += 1
            await self._publish(channel, number)
            await asyncio.sleep(0.002)

    async def _publish(self, channel: str, number: int) -> None:
        claim = Claim(f"{channel}/{number}", b"same")
        while True:
            began = time.monotonic()
            try:
                receipt = await self.node.broker.publish(
                    channel, b'{"n":%d}' % number, NOW_MS, claim=claim, in_history=True
                )
            except FloorcastError as error:
                self.refused += 1
                self.codes.add(error.code)
                await asyncio.sleep(0.01)
            else:
                self.acknowledged[channel][number] = receipt
                self.last_at = time.monotonic()
                return
            finally:
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)

    async def until_acknowledged(self, since_seconds: float) -> None:
        """Wait until something is acknowledged again; that is soon after the cause has gone."""
        async with asyncio.timeout(RECOVERY_SECONDS):
            while self.last_at <= since_seconds:
                await asyncio.sleep(0.005)


@dataclass(slots=True)
class FaultRig:
    """A Redis of its own, somebody who publishes on one node, and somebody who hears on another."""

    redis: RedisServer
    cluster: BrokerCluster
    publisher: BrokerPublisher
    reader: BrokerNode

    async def until_noticed(self) -> None:
        """Who hears knows that Redis is away, and who publishes is told so."""
        await self.reader.wait_until(
            lambda: not self.reader.states[-1] and bool(self.publisher.refused)
        )

    async def until_recovered(self) -> None:
        """The cause has gone: publishers and readers are back within the time."""
        gone_at = time.monotonic()
        await self.publisher.until_acknowledged(gone_at)
        async with asyncio.timeout(RECOVERY_SECONDS):
            heard = len(self.reader.entries)
            while len(self.reader.entries) <= heard or not self.reader.states[-1]:
                await asyncio.sleep(0.005)
        assert time.monotonic() - gone_at < RECOVERY_SECONDS

    async def until_caught_up(self) -> None:
        """Everything that was acknowledged last has been heard."""
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
        """No gap and no duplicate between two resets; no acknowledged message unaccounted for."""
        assert self.publisher.slowest_seconds < MAX_REPLY_SECONDS
        assert self.publisher.codes <= {"server.overloaded"}
        assert bool(self.reader.resets) == has_loss
        for channel in CHANNELS:
            numbers = self._numbers(channel)
            assert len(numbers) == len(set(numbers)), "nothing is heard twice"
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
    """Publishing and hearing, for as long as it is open.

    Where nobody may be refused, the time for an answer is one that no busy machine needs.
    """
    with redis_server() as redis:
        cluster = BrokerCluster("redis", redis.url)
        async with (
            cluster.running(UNBOUNDED, timeout_seconds=timeout_seconds) as writer,
            cluster.running(UNBOUNDED, timeout_seconds=timeout_seconds) as reader,
        ):
            for channel in CHANNELS:
                await reader.broker.watch(channel)
            ledger = BrokerPublisher(writer)
            publishing = asyncio.create_task(ledger.publish_all(), name="ledger")
            try:
                await reader.wait_until(lambda: len(reader.entries) > 100)
                yield FaultRig(redis, cluster, ledger, reader)
            finally:
                publishing.cancel()
                await asyncio.wait([publishing])
            assert publishing.cancelled()


async def check_recovery(rig: FaultRig, *, has_loss: bool = False) -> None:
    """Let it heal, hear everything, and judge."""
    await rig.until_recovered()
    await asyncio.sleep(0.05)
    await rig.until_caught_up()
    rig.check(has_loss=has_loss)


async def test_killed_and_restarted_empty() -> None:
    async with fault_rig() as on:
        on.redis.kill()
        await on.until_noticed()
        on.redis.start()
        await check_recovery(on, has_loss=True)
        assert on.reader.states == [True, False, True]


async def test_paused() -> None:
    async with fault_rig() as on:
        on.redis.pause()
        await asyncio.sleep(PAUSE_SECONDS)
        await on.until_noticed()
        on.redis.resume()
        await check_recovery(on)


async def test_paused_for_less_than_anybody_notices() -> None:
    async with fault_rig(MAX_WAIT_SECONDS) as on:
        on.redis.pause()
        await asyncio.sleep(TIMEOUT_SECONDS / 4)
        on.redis.resume()
        await check_recovery(on)
        assert on.publisher.refused == 0


async def test_pub_sub_connections_are_killed() -> None:
    async with fault_rig(MAX_WAIT_SECONDS) as on:
        for _ in range(5):
            with on.redis.client() as client:
                client.client_kill_filter(_type="pubsub")
            await asyncio.sleep(0.05)
        await check_recovery(on)
        assert on.publisher.refused == 0, "publishers do not need them"


async def test_every_connection_is_killed() -> None:
    async with fault_rig() as on:
        with on.redis.client() as client:
            client.client_kill_filter(_type="pubsub")
            client.client_kill_filter(_type="normal", skipme=True)
        await check_recovery(on)


async def test_its_memory_is_full() -> None:
    async with fault_rig() as on:
        with on.redis.client() as client:
            client.config_set("maxmemory", 1)
            await on.reader.wait_until(lambda: bool(on.publisher.refused))
            [channel, *_] = CHANNELS
            assert await on.reader.broker.latest(channel) is not None, "and reading goes on"
            assert on.reader.states == [True]
            client.config_set("maxmemory", 0)
        await check_recovery(on)


async def test_a_stranger_sends_33_megabytes_to_our_channels() -> None:
    async with fault_rig() as on:
        with on.redis.client() as client:
            for channel in CHANNELS:
                client.publish(f"{on.cluster.prefix}:{{{channel}}}", b"x" * 33_000_000)
        await check_recovery(on)
        lost, strange = map(on.reader.counters.total, ("broker.lost", "broker.strange"))
        assert lost or strange, "it came, or Redis has cut us off for it"


async def test_everything_is_flushed() -> None:
    async with fault_rig() as on:
        with on.redis.client() as client:
            client.flushall()
        await check_recovery(on, has_loss=True)


async def test_the_programs_are_flushed() -> None:
    async with fault_rig(MAX_WAIT_SECONDS) as on:
        with on.redis.client() as client:
            client.script_flush()
        await check_recovery(on)
        assert on.publisher.refused == 0


async def test_a_node_that_went_deaf_finds_out_by_itself() -> None:
    async with fault_rig() as on:
        listener = on.reader.broker._subscriber._pubsub  # type: ignore[attr-defined]
        connection = listener._connection
        await connection.send_packed_command(connection.pack_command("UNSUBSCRIBE"))
        await asyncio.sleep(0.1)
        deaf_at, heard = time.monotonic(), len(on.reader.entries)
        async with asyncio.timeout(RECOVERY_SECONDS):
            while len(on.reader.entries) <= heard:
                await asyncio.sleep(0.01)
        assert time.monotonic() - deaf_at < RECOVERY_SECONDS
        await check_recovery(on)
        assert on.reader.counters.total("broker.deaf") == 1


async def test_clients_are_told_that_the_broker_is_away_and_that_it_is_back() -> None:
    with redis_server() as redis:
        settings = {"broker.url": redis.url, "broker.timeout_seconds": TIMEOUT_SECONDS}
        async with running(settings) as floor:
            client = await RawClient.connect(floor.port, floor.token())
            await client.call("subscribe", {"topics": ["PRICE:A", "TRADES:A"]})
            message = {"topic": "PRICE:A", "data": PRICE}
            assert (await client.call("publish", {"messages": [message]}))["ok"]
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
            assert answer["topics"]["PRICE:A"]["snapshot"]["data"] == PRICE, "what is known is told"
            redis.start()
            await until_states(client, {"PRICE": "LIVE", "TRADES": "LIVE"})
            answer = await client.call("publish", {"messages": [message]})
            assert answer["positions"][0]["seq"] == 1, "its history was lost"
            client.cut()
            await floor.until_empty()


async def test_what_is_asked_for_while_redis_is_away_is_refused_topic_by_topic() -> None:
    with redis_server() as redis:
        settings = {"broker.url": redis.url, "broker.timeout_seconds": TIMEOUT_SECONDS}
        async with running(settings) as floor:
            client = await RawClient.connect(floor.port, floor.token())
            member = await SessionClient.connect(floor, "ann", "known")
            redis.pause()
            began = time.monotonic()
            topics = [f"{stream}:S{n}" for stream in ("PRICE", "TRADES") for n in range(100)]
            answer = await client.call("subscribe", {"topics": topics})
            assert time.monotonic() - began < 2 * MAX_REPLY_SECONDS, "not one time limit a topic"
            assert list(answer["topics"]) == topics
            for told in answer["topics"].values():
                assert told["status"] == "ERROR"
                assert told["error"]["code"] == "server.overloaded"
                assert told["error"]["retry_after_ms"] > 0
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
            async with asyncio.timeout(RECOVERY_SECONDS):
                while not (await client.call("subscribe", {"topics": topics[:1]}))["topics"][
                    topics[0]
                ].get("epoch"):
                    await asyncio.sleep(0.05)
            answer = await client.call("subscribe", {"topics": topics})
            assert {told["status"] for told in answer["topics"].values()} == {"CONNECTED"}
            answer = await member.call("participants", session_id="known")
            assert answer["participant_count"] == 1, "who was in is in"
            assert (await member.call("send", session_id="known", data={}))["ok"]
            assert (await member.call("join", session_id="new"))["ok"]
            for each in (client, member):
                each.cut()
            await floor.until_empty()


async def test_a_history_that_redis_lost_is_a_new_beginning_for_who_listens() -> None:
    with redis_server() as redis:
        settings = {"broker.url": redis.url, "broker.timeout_seconds": TIMEOUT_SECONDS}
        async with running(settings) as floor:
            reader = await RawClient.connect(floor.port, floor.token())
            publisher = await RawClient.connect(floor.port, floor.token())
            message = {"topic": "PRICE:A", "data": PRICE}
            await publisher.call("publish", {"messages": [message] * 3})
            answer = await reader.call("subscribe", {"topics": ["PRICE:A"]})
            assert answer["topics"]["PRICE:A"]["seq"] == 3
            redis.kill()
            redis.start()
            states: list[str] = []
            async with asyncio.timeout(RECOVERY_SECONDS):
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
            await floor.until_empty()


async def until_states(client: RawClient, wanted: dict[str, str]) -> None:
    """Wait until the topics were last said to be in these states."""
    known: dict[str, str] = {}
    async with asyncio.timeout(RECOVERY_SECONDS):
        while known != wanted:
            event, body = await client.event()
            if event == "status":
                known[body["stream"]] = body["state"]
