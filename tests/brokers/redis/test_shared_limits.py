"""Places while Redis is away, slow, full or empty: a node decides alone, and says so."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from client_sdk.contract import ErrorCode
from server.core.limits.keys import ConnectionLimit, LimitKeys
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.rigs.limits_cluster import (
    ADDRESS,
    ANN,
    LimitsNode,
    count_admitted,
    limits_node,
    pass_time,
)
from tests.kit.rigs.presence_cluster import PresenceCluster

KEY, USER_KEY = "{address@192.0.2.1}:places", "{user@4:acme:ann}:places"


@contextlib.asynccontextmanager
async def breakable_nodes() -> AsyncIterator[
    tuple[RedisServer, PresenceCluster, LimitsNode, LimitsNode]
]:
    """Two gates, one of which does not wait for long, and a Redis of their own."""
    with redis_server() as server:
        quarter = PresenceCluster(server.url)
        async with quarter.node(timeout_seconds=0.5) as one, quarter.node() as two:
            yield (
                server,
                quarter,
                limits_node(quarter, one, timeout_seconds=0.02),
                limits_node(quarter, two),
            )


def counts_of(server: RedisServer, quarter: PresenceCluster, key: str = KEY) -> dict[bytes, bytes]:
    with server.client() as client:
        found: dict[bytes, bytes] = client.hgetall(f"{quarter.prefix}:{key}")  # type: ignore[assignment]
        return found


@pytest.fixture
def quarter(shared_redis: RedisServer) -> PresenceCluster:
    return PresenceCluster(shared_redis.url)


async def test_while_redis_is_slow_a_node_decides_alone_and_is_right_again_afterwards() -> None:
    async with breakable_nodes() as (server, quarter, one, other):
        assert count_admitted(await one.connect(2)) == 2
        assert count_admitted(await other.connect(3)) == 3
        server.pause()
        began = asyncio.get_running_loop().time()
        assert count_admitted(await one.connect(6)) == 6
        assert asyncio.get_running_loop().time() - began < 0.4, "before Redis is given up"
        assert (one.limits.is_degraded, one.local_count) == (True, 6)
        came = one.limits.acquire(ADDRESS)
        with pytest.raises(StopIteration):
            came.send(None)
        assert one.local_count == 7, "the next ones do not wait at all"
        one.limits.release(ADDRESS)
        assert count_admitted(await one.connect(1, ANN)) == 1
        server.resume()
        await one.wait_idle()
        assert not one.limits.is_degraded
        assert sorted(counts_of(server, quarter).values()) == [b"3", b"8"]
        assert list(counts_of(server, quarter, USER_KEY).values()) == [b"1"]
        assert count_admitted(await other.connect(1)) == 0
        await one.disconnect(5)
        assert count_admitted(await other.connect(9)) == 1


async def test_while_redis_is_down_everybody_is_let_in_at_once_and_counted_when_it_is_back() -> (
    None
):
    async with breakable_nodes() as (server, quarter, one, other):
        assert count_admitted(await one.connect(4)) == 4
        assert count_admitted(await one.connect(1, ANN)) == 1
        server.kill()
        for _ in range(2):
            assert count_admitted(await one.connect(2)) == 2
        one.limits.release(ANN)
        assert (one.limits.is_degraded, one.local_count) == (True, 4)
        await pass_time(quarter, 3, one, other)
        await other.node.wait_until(lambda: not other.limits._pipeline.is_up)
        server.start()
        await one.node.wait_until(
            lambda: one.limits._pipeline.is_up and other.limits._pipeline.is_up
        )
        await pass_time(quarter, 3, one, other)
        assert not one.limits.is_degraded
        assert list(counts_of(server, quarter).values()) == [b"8"]
        assert count_admitted(await other.connect(1)) == 0
        assert count_admitted(await other.connect(9, ANN)) == 7
        assert one.limits.tracked_count == 1


async def test_whoever_comes_and_goes_while_redis_is_down_is_not_remembered() -> None:
    rated = LimitKeys(ConnectionLimit(7), ConnectionLimit(0, 5.0))
    with redis_server() as server:
        quarter = PresenceCluster(server.url)
        async with quarter.node(timeout_seconds=0.5) as hall:
            one = limits_node(quarter, hall, rated)
            assert count_admitted(await one.connect(2)) == 2
            server.kill()
            await pass_time(quarter, 3, one)
            assert not one.limits._pipeline.is_up
            for number in range(100):
                for holder in (f"198.51.100.{number}", ("acme", f"user{number}")):
                    assert count_admitted(await one.connect(2, holder)) == 2
                    one.limits.release(holder)
                    one.limits.release(holder)
            assert one.limits.tracked_count == len(one.limits._failed) + 1 == 1
            server.start()
            await one.node.wait_until(lambda: one.limits._pipeline.is_up)
            await pass_time(quarter, 3, one)
            assert list(counts_of(server, quarter).values()) == [b"2"]


async def test_what_redis_has_lost_is_told_to_it_again_with_the_next_beat() -> None:
    async with breakable_nodes() as (server, quarter, one, other):
        holders = [f"192.0.2.{each}" for each in range(600)]
        for each in holders:
            assert count_admitted(await other.connect(2, each)) == 2
        assert count_admitted(await one.connect(4)) == 4
        with server.client() as client:
            client.flushall()
        await pass_time(quarter, 3, one, other)
        assert sorted(counts_of(server, quarter).values()) == [b"2", b"4"]
        assert count_admitted(await one.connect(5)) == 1
        assert count_admitted(await one.connect(9, holders[-1])) == 5
        assert (one.local_count, other.local_count) == (0, 0)


async def test_what_may_have_been_lost_with_a_connection_is_told_again() -> None:
    async with breakable_nodes() as (server, quarter, one, other):
        assert count_admitted(await one.connect(4)) == 4
        with server.client() as client:
            # As a failover does to a replica that had not come so far.
            client.delete(f"{quarter.prefix}:{KEY}")
            client.client_kill_filter(_type="pubsub")
        await one.node.wait_until(lambda: one.node.counters.total("broker.lost") == 1)
        broker = one.node.broker
        assert broker is not None
        await one.node.wait_until(lambda: broker._subscriber.is_up)
        await pass_time(quarter, 3, one, other)
        assert list(counts_of(server, quarter).values()) == [b"4"]


async def test_a_bounded_number_of_addresses_is_told_at_a_time(quarter: PresenceCluster) -> None:
    async with quarter.node() as hall:
        each = limits_node(quarter, hall)
        for number in range(600):
            assert count_admitted(await each.connect(1, f"192.0.2.{number}")) == 1
        each.limits._on_beat(True)
        assert each.limits._in_flight == 256
        await each.wait_idle()
        assert not each.limits._unreported


async def test_an_answer_to_what_a_node_said_by_an_earlier_name_is_not_the_last_word(
    quarter: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with quarter.node() as hall:
        each = limits_node(quarter, hall)
        coming = asyncio.ensure_future(each.connect(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert each.limits._in_flight == 1
        each.limits._liveness.node = "renamed"
        assert count_admitted(await coming) == 1
        await each.wait_idle()
        assert counts_of(shared_redis, quarter)[b"renamed"] == b"1"


async def test_where_redis_refuses_to_count_a_node_decides_alone() -> None:
    async with breakable_nodes() as (server, quarter, one, other):
        assert count_admitted(await one.connect(2)) == 2
        with server.client() as client:
            client.delete(f"{quarter.prefix}:{KEY}")
            client.set(f"{quarter.prefix}:{KEY}", "a stranger's")
        assert count_admitted(await one.connect(3)) == 3
        assert (one.limits.is_degraded, one.local_count) == (True, 3)
        await pass_time(quarter, 2, one, other)
        with server.client() as client:
            client.delete(f"{quarter.prefix}:{KEY}")
        await pass_time(quarter, 3, one, other)
        assert not one.limits.is_degraded
        assert count_admitted(await other.connect(9)) == 2


async def test_a_place_that_was_given_back_unheard_is_given_back_all_the_same() -> None:
    async with breakable_nodes() as (server, quarter, one, other):
        assert count_admitted(await one.connect(7)) == 7
        server.pause()
        for _ in range(3):
            one.limits.release(ADDRESS)
        await one.node.wait_until(lambda: not one.limits._pipeline.is_up)
        for _ in range(3):
            one.limits.release(ADDRESS)
        server.resume()
        await one.node.wait_until(lambda: one.limits._pipeline.is_up)
        await pass_time(quarter, 3, one, other)
        assert count_admitted(await other.connect(9)) == 6


async def test_a_place_that_was_granted_unheard_to_one_who_has_gone_is_given_back() -> None:
    async with breakable_nodes() as (server, quarter, one, other):
        server.pause()
        coming = asyncio.ensure_future(one.connect(1))
        await one.node.wait_until(lambda: one.limits._in_flight == 1)
        coming.cancel()
        await one.node.wait_until(lambda: not one.limits._pipeline.is_up)
        server.resume()
        await one.node.wait_until(lambda: one.limits._pipeline.is_up)
        await pass_time(quarter, 3, one, other)
        assert counts_of(server, quarter) == {}
        assert (one.limits.tracked_count, one.local_count) == (0, 0)


# --- what it costs, and what stays


def script_calls(server: RedisServer) -> int:
    with server.client() as client:
        stats: dict[str, Any] = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_what_is_not_limited_is_not_asked_for() -> None:
    with redis_server() as server:
        quarter = PresenceCluster(server.url)
        async with quarter.node() as hall:
            each = limits_node(quarter, hall, LimitKeys(ConnectionLimit(0), ConnectionLimit(0)))
            before = script_calls(server)
            for holder in (ADDRESS, ANN):
                assert count_admitted(await each.connect(100, holder)) == 100
                await each.disconnect(100, holder)
            assert script_calls(server) - before <= 2, "the node has said that it lives"
            assert each.limits.tracked_count == 0


async def test_many_of_one_address_are_asked_for_together() -> None:
    with redis_server() as server:
        quarter = PresenceCluster(server.url)
        async with quarter.node() as hall:
            each = limits_node(quarter, hall, LimitKeys(ConnectionLimit(1000), ConnectionLimit(0)))
            await each.wait_idle()
            before = script_calls(server)
            assert count_admitted(await each.connect(500)) == 500
            assert script_calls(server) - before <= 2


async def test_who_was_there_is_forgotten_by_redis(
    quarter: PresenceCluster, shared_redis: RedisServer
) -> None:
    quotas = LimitKeys(ConnectionLimit(7, attempts_per_second=10), ConnectionLimit(7))
    async with quarter.node() as hall:
        each = limits_node(quarter, hall, quotas)
        assert count_admitted([*await each.connect(7), *await each.connect(7, ANN)]) == 14
        key = f"{quarter.prefix}:{KEY}"
        with shared_redis.client() as client:
            assert 800_000 < client.pttl(key) <= 900_000
            await each.disconnect(7)
            await each.disconnect(7, ANN)
            assert 0 < client.pttl(key) <= 2000, "as long as the attempts are remembered"
            assert client.keys(f"{quarter.prefix}:*user*") == []


async def test_what_lasts_is_said_again_before_redis_forgets_it(
    quarter: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with quarter.node() as one, quarter.node() as two:
        lasting, dead = limits_node(quarter, one), limits_node(quarter, two)
        assert count_admitted(await lasting.connect(1, "192.0.2.2")) == 1
        assert count_admitted([*await lasting.connect(2), *await dead.connect(3)]) == 5
        await two.die()
        key = f"{quarter.prefix}:{KEY}"
        with shared_redis.client() as client:
            client.pexpire(key, 60_000)
            await pass_time(quarter, 200, lasting)
            # It is spoken of before it has to be, and so the other one comes first.
            assert count_admitted(await lasting.connect(1, "192.0.2.2")) == 1
            await pass_time(quarter, 99, lasting)
            assert client.pttl(key) <= 60_000
            await pass_time(quarter, 4, lasting)
            assert client.pttl(key) > 60_000
            assert client.hlen(key) == 1, "and what the dead had is gone"
            assert client.hvals(key) == [b"2"]


async def test_nobody_is_told_to_wait_for_an_attempt_that_was_not_made(
    quarter: PresenceCluster,
) -> None:
    quotas = LimitKeys(ConnectionLimit(0, attempts_per_second=1), ConnectionLimit(0))
    async with quarter.node() as hall:
        each = limits_node(quarter, hall, quotas)
        assert (await each.connect(3)).count(ErrorCode.LIMIT_RATE) == 1
        for _ in range(5):
            assert await each.connect(1) == [ErrorCode.LIMIT_RATE]
        quarter.clock.advance(1.0)
        assert await each.connect(1) == [None]
