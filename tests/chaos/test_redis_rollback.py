"""A Redis that comes back without its last moments: no place is ever given to two messages.

Either a replica becomes the master that was cut off before, or a server starts again from an older
snapshot. What had been told after that moment is lost, which has to show as a new epoch.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import orjson
import pytest

from server.core.errors import FloorcastError
from server.core.log.entries import Entry, Position, Reset
from server.core.log.idempotency import Claim
from tests.chaos.test_redis_faults import (
    CHANNELS,
    NOW_MS,
    RECOVERY_SECONDS,
    TIMEOUT_SECONDS,
    UNBOUNDED,
    BrokerPublisher,
)
from tests.kit.redis.servers import RedisServer, ReplicatedPair, redis_pair, redis_server
from tests.kit.rigs.broker_cluster import BrokerCluster, BrokerNode

WAYS = ("failover", "restart")


@dataclass
class Failover:
    """A replica takes over."""

    pair: ReplicatedPair

    @property
    def url(self) -> str:
        return self.pair.url

    def save(self) -> None:
        """What comes from now on is lost with the crash."""
        self.pair.disconnect_replica()

    async def crash(self) -> None:
        """It goes, and is back as soon as this returns."""
        self.pair.kill_master()
        async with asyncio.timeout(20):
            while not self.pair.is_promoted:
                await asyncio.sleep(0.02)


@dataclass
class Restart:
    """The same server begins with an older file."""

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
def rollback_redis(way: str) -> Iterator[RollbackRedis]:
    if way == "failover":
        with redis_pair() as pair:
            yield Failover(pair)
    else:
        with redis_server() as server:
            yield Restart(server)


@pytest.fixture(params=WAYS)
def past(request: pytest.FixtureRequest) -> Iterator[RollbackRedis]:
    """A Redis of its own for each test."""
    with rollback_redis(request.param) as redis:
        yield redis


@contextlib.asynccontextmanager
async def two_nodes(redis: RollbackRedis) -> AsyncIterator[tuple[BrokerNode, BrokerNode]]:
    cluster = BrokerCluster("redis", redis.url)
    async with (
        cluster.running(UNBOUNDED, timeout_seconds=TIMEOUT_SECONDS) as one,
        cluster.running(UNBOUNDED, timeout_seconds=TIMEOUT_SECONDS) as other,
    ):
        yield one, other


async def until_reachable(*nodes: BrokerNode) -> None:
    """Both take publishes again, and know what there is."""
    async with asyncio.timeout(RECOVERY_SECONDS):
        for node in nodes:
            while not (node.states[-1] and await is_reachable(node)):
                await asyncio.sleep(0.005)


async def is_reachable(node: BrokerNode) -> bool:
    """Whether it gets through; a connection that nothing was sent over may be dead unnoticed."""
    try:
        await node.broker.head("Z")
    except FloorcastError:
        return False
    return True


async def publish(node: BrokerNode, first: int, last: int, word: str = "") -> list[Position]:
    """Publish numbers, one after the other."""
    return [
        (
            await node.broker.publish(
                "A", b'{"n":"%d%b"}' % (n, word.encode()), NOW_MS, in_history=True
            )
        ).position
        for n in range(first, last + 1)
    ]


async def roll_back(redis: RollbackRedis, *nodes: BrokerNode) -> None:
    """It went back in time, and all know."""
    await redis.crash()
    for node in nodes:
        await node.wait_until(lambda node=node: False in node.states)  # type: ignore[misc]
    await until_reachable(*nodes)


def summarize(events: list[Entry | Reset]) -> list[str | tuple[str, int]]:
    """What a node told: the numbers, and where it began anew."""
    return [
        ("reset", each.head.seq) if isinstance(each, Reset) else orjson.loads(each.data)["n"]
        for each in events
    ]


@dataclass(slots=True)
class Places:
    """Which message was said to be at each place, by anybody at any time."""

    known: dict[tuple[str, Position], bytes] = field(default_factory=dict)

    def note(self, channel: str, position: Position, data: bytes) -> None:
        known = self.known.setdefault((channel, position), data)
        assert known == data, f"{channel} {position} is {known!r} and {data!r}"


@pytest.mark.parametrize("forgets", [True, False])
async def test_under_load_no_place_has_two_messages_and_nothing_that_is_there_is_missed(
    past: RollbackRedis, forgets: bool
) -> None:
    async with two_nodes(past) as (writer, reader):
        for channel in CHANNELS:
            await reader.broker.watch(channel)
        ledger = BrokerPublisher(writer)
        publishing = asyncio.create_task(ledger.publish_all(), name="ledger")
        try:
            await reader.wait_until(lambda: len(reader.entries) > 100)
            if forgets or isinstance(past, Restart):
                past.save()
            await asyncio.sleep(0.3 if forgets else 0)
            await past.crash()
            back_at = time.monotonic()
            await ledger.until_acknowledged(back_at)
            await until_reachable(reader)
            assert time.monotonic() - back_at < RECOVERY_SECONDS
            counts = {channel: len(each) for channel, each in ledger.acknowledged.items()}
            await reader.wait_until(
                lambda: all(len(ledger.acknowledged[each]) > counts[each] + 10 for each in CHANNELS)
            )
        finally:
            publishing.cancel()
            await asyncio.wait([publishing])
        assert ledger.codes <= {"server.overloaded"}
        lasts = [receipts[max(receipts)] for receipts in ledger.acknowledged.values()]
        await reader.wait_until(lambda: {each.position for each in lasts} <= _positions(reader))
        places = Places()
        for channel, receipts in ledger.acknowledged.items():
            for number, receipt in receipts.items():
                places.note(channel, receipt.position, b'{"n":%d}' % number)
        for entry in reader.entries:
            places.note(entry.channel, entry.position, entry.data)
        for channel, receipts in ledger.acknowledged.items():
            _check_order([each for each in reader.deliveries if each.channel == channel])
            heard = {each.position for each in reader.entries if each.channel == channel}
            kept = await reader.broker.before(channel, None, 1_000_000)
            # Of the very last one nobody may have been told that it was taken.
            assert {each.position for each in kept[:-1]} <= heard
            assert [each.position.seq for each in kept] == list(range(1, len(kept) + 1))
            if not forgets and isinstance(past, Failover):
                assert {each.position for each in kept} >= {
                    each.position for each in receipts.values()
                }, "the replica had it"


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


async def test_who_had_heard_what_is_lost_is_told_and_hears_everything_that_came_instead(
    past: RollbackRedis,
) -> None:
    async with two_nodes(past) as (writer, reader):
        await reader.broker.watch("A")
        await publish(writer, 1, 3)
        past.save()
        [*_, lost] = await publish(writer, 4, 5, "lost")
        await reader.wait_for_entries(5)
        await roll_back(past, writer, reader)
        [first, *_] = await publish(writer, 4, 8, "new")
        assert first == Position(first.epoch, 4)
        assert first.epoch != lost.epoch
        await reader.wait_until(lambda: len(reader.entries) >= 10)
        assert summarize(reader.deliveries) == [
            *("1", "2", "3", "4lost", "5lost"),
            ("reset", 3),
            *("4new", "5new", "6new", "7new", "8new"),
        ]


async def test_who_comes_back_from_a_place_that_is_lost_is_not_told_what_does_not_follow(
    past: RollbackRedis,
) -> None:
    async with two_nodes(past) as (writer, reader):
        await publish(writer, 1, 3)
        past.save()
        [*_, lost] = await publish(writer, 4, 5, "lost")
        await roll_back(past, writer, reader)
        # Nobody watches it: no node knows that there was more.
        [*_, last] = await publish(writer, 4, 8, "new")
        assert await reader.broker.since("A", lost) is None
        assert await reader.broker.head("A") == last
        told = await reader.broker.since("A", Position(last.epoch, 0))
        assert [each.position.seq for each in told or ()] == [4, 5, 6, 7, 8], "of the new epoch"
        kept = await reader.broker.before("A", None, 10)
        assert summarize(list(kept)) == ["1", "2", "3", "4new", "5new", "6new", "7new", "8new"]


async def test_the_place_where_it_goes_on_is_told_at_once_and_has_the_state(
    past: RollbackRedis,
) -> None:
    async with two_nodes(past) as (writer, reader):
        await reader.broker.watch("A")
        await publish(writer, 1, 3)
        past.save()
        await publish(writer, 4, 5, "lost")
        await reader.wait_for_entries(5)
        await roll_back(past, writer, reader)
        [reset] = reader.resets
        latest = await reader.broker.latest("A")
        assert latest is not None
        assert orjson.loads(latest.data) == {"n": "3"}
        assert reset == Reset("A", latest.position, latest)
        assert latest.position == await writer.broker.head("A")


async def test_a_message_that_outlived_the_crash_keeps_its_place_when_it_is_published_again(
    past: RollbackRedis,
) -> None:
    claims = Claim("kept", b"one"), Claim("lost", b"other")
    async with two_nodes(past) as (writer, reader):
        kept, lost = claims
        place = (
            await writer.broker.publish("A", b"{}", NOW_MS, claim=kept, in_history=True)
        ).position
        past.save()
        gone = (
            await writer.broker.publish("A", b'{"n":2}', NOW_MS, claim=lost, in_history=True)
        ).position
        await roll_back(past, writer, reader)
        for _ in range(2):
            again = await reader.broker.publish("A", b"{}", NOW_MS, claim=kept, in_history=True)
            assert again.position == place
        again = await reader.broker.publish("A", b'{"n":2}', NOW_MS, claim=lost, in_history=True)
        assert again.position.seq == gone.seq
        assert again.position.epoch != gone.epoch
        assert len(await reader.broker.before("A", None, 10)) == 2


async def test_a_book_goes_on_from_the_state_that_is_left(past: RollbackRedis) -> None:
    def book(*prices: bytes) -> bytes:
        levels = b",".join(b'["%b","1"]' % price for price in prices)
        return b'{"bids":[%b],"asks":[],"checksum":1}' % levels

    async with two_nodes(past) as (writer, reader):
        await reader.broker.watch("A")
        await writer.broker.publish("A", book(b"1"), NOW_MS, full_state=lambda: book(b"1"))
        await writer.broker.publish("A", book(b"2"), NOW_MS, full_state=lambda: book(b"1", b"2"))
        past.save()
        lost = await writer.broker.publish("A", book(b"9"), NOW_MS, full_state=lambda: book(b"9"))
        await reader.wait_for_entries(3)
        await roll_back(past, writer, reader)
        with pytest.raises(FloorcastError):
            # Whoever publishes looks what it has become first.
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


async def test_a_master_that_is_none_any_more_is_left_and_publishers_are_told() -> None:
    with redis_pair() as pair:
        async with two_nodes(Failover(pair)) as (writer, reader):
            await publish(writer, 1, 3)
            pair.demote()
            with pytest.raises(FloorcastError) as refused:
                await publish(writer, 4, 4)
            assert refused.value.retry_after_ms is not None
            await writer.wait_until(lambda: False in writer.states)
            pair.reinstate()
            await until_reachable(writer, reader)
            assert (await publish(writer, 4, 4))[0].seq == 4


async def test_a_server_that_dies_again_and_again_gives_no_place_twice() -> None:
    with rollback_redis("restart") as past:
        async with two_nodes(past) as (writer, reader):
            await reader.broker.watch("A")
            places = Places()
            for life in range(6):
                past.save()
                for n in range(3):
                    data = b'{"n":"%d/%d"}' % (life, n)
                    receipt = await writer.broker.publish("A", data, NOW_MS, in_history=True)
                    places.note("A", receipt.position, data)
                await reader.wait_until(lambda place=receipt.position: place in _positions(reader))  # type: ignore[misc]
                reader.states.clear()
                writer.states.clear()
                await roll_back(past, writer, reader)
            assert len(places.known) == 18
            _check_order(reader.deliveries)
            assert len(reader.resets) == 6
            seqs = {position.seq for _, position in places.known}
            assert seqs == {1, 2, 3}, "nothing was kept"
