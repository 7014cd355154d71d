"""Shared limits while Redis is down, slow or empty: nodes admit locally and reconcile."""

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

# A Redis that does not answer for so long counts as down.
DOWN_SECONDS = 1.0
KEY, USER_KEY = "{address@192.0.2.1}:places", "{user@4:acme:ann}:places"


@contextlib.asynccontextmanager
async def breakable_nodes() -> AsyncIterator[
    tuple[RedisServer, PresenceCluster, LimitsNode, LimitsNode]
]:
    """Two nodes with a Redis of their own; the first one has a short timeout."""
    with redis_server() as server:
        cluster = PresenceCluster(server.url)
        async with cluster.node(timeout_seconds=DOWN_SECONDS) as one, cluster.node() as two:
            yield (
                server,
                cluster,
                limits_node(cluster, one, timeout_seconds=0.2),
                limits_node(cluster, two),
            )


def counts_of(server: RedisServer, cluster: PresenceCluster, key: str = KEY) -> dict[bytes, bytes]:
    with server.client() as client:
        found: dict[bytes, bytes] = client.hgetall(f"{cluster.prefix}:{key}")  # type: ignore[assignment]
        return found


@pytest.fixture
def cluster(shared_redis: RedisServer) -> PresenceCluster:
    return PresenceCluster(shared_redis.url)


async def test_slow_redis_makes_a_node_admit_locally_and_recover() -> None:
    async with breakable_nodes() as (server, cluster, one, other):
        assert count_admitted(await one.connect(2)) == 2
        assert count_admitted(await other.connect(3)) == 3
        # A busy machine may be too slow for the short timeout even now.
        before = one.local_count
        server.pause()
        began = asyncio.get_running_loop().time()
        assert count_admitted(await one.connect(6)) == 6
        assert asyncio.get_running_loop().time() - began < DOWN_SECONDS, "Redis is not down"
        assert (one.limits.is_degraded, one.local_count - before) == (True, 6)
        acquiring = one.limits.acquire(ADDRESS)
        with pytest.raises(StopIteration):
            acquiring.send(None)
        assert one.local_count - before == 7, "later requests do not wait"
        one.limits.release(ADDRESS)
        assert count_admitted(await one.connect(1, ANN)) == 1
        server.resume()
        await one.wait_idle()
        assert not one.limits.is_degraded
        assert sorted(counts_of(server, cluster).values()) == [b"3", b"8"]
        assert list(counts_of(server, cluster, USER_KEY).values()) == [b"1"]
        assert count_admitted(await other.connect(1)) == 0
        await one.disconnect(5)
        assert count_admitted(await other.connect(9)) == 1


async def test_connections_admitted_while_redis_is_down_are_counted() -> None:
    async with breakable_nodes() as (server, cluster, one, other):
        assert count_admitted(await one.connect(4)) == 4
        assert count_admitted(await one.connect(1, ANN)) == 1
        server.kill()
        for _ in range(2):
            assert count_admitted(await one.connect(2)) == 2
        one.limits.release(ANN)
        assert (one.limits.is_degraded, one.local_count) == (True, 4)
        await pass_time(cluster, 3, one, other)
        await other.node.wait_until(lambda: not other.limits._pipeline.is_up)
        server.start()
        await one.node.wait_until(
            lambda: one.limits._pipeline.is_up and other.limits._pipeline.is_up
        )
        await pass_time(cluster, 3, one, other)
        assert not one.limits.is_degraded
        assert list(counts_of(server, cluster).values()) == [b"8"]
        assert count_admitted(await other.connect(1)) == 0
        assert count_admitted(await other.connect(9, ANN)) == 7
        assert one.limits.tracked_count == 1


async def test_connections_closed_while_redis_is_down_are_forgotten() -> None:
    rated = LimitKeys(ConnectionLimit(7), ConnectionLimit(0, 5.0))
    with redis_server() as server:
        cluster = PresenceCluster(server.url)
        async with cluster.node(timeout_seconds=0.5) as node:
            one = limits_node(cluster, node, rated)
            assert count_admitted(await one.connect(2)) == 2
            server.kill()
            await pass_time(cluster, 3, one)
            assert not one.limits._pipeline.is_up
            for number in range(100):
                for key in (f"198.51.100.{number}", ("acme", f"user{number}")):
                    assert count_admitted(await one.connect(2, key)) == 2
                    one.limits.release(key)
                    one.limits.release(key)
            assert one.limits.tracked_count == len(one.limits._failed) + 1 == 1
            server.start()
            await one.node.wait_until(lambda: one.limits._pipeline.is_up)
            await pass_time(cluster, 3, one)
            assert list(counts_of(server, cluster).values()) == [b"2"]


async def test_lost_counts_are_reported_with_the_next_heartbeat() -> None:
    async with breakable_nodes() as (server, cluster, one, other):
        keys = [f"192.0.2.{each}" for each in range(600)]
        for each in keys:
            assert count_admitted(await other.connect(2, each)) == 2
        assert count_admitted(await one.connect(4)) == 4
        with server.client() as client:
            client.flushall()
        await pass_time(cluster, 3, one, other)
        assert sorted(counts_of(server, cluster).values()) == [b"2", b"4"]
        assert count_admitted(await one.connect(5)) == 1
        assert count_admitted(await one.connect(9, keys[-1])) == 5
        assert (one.local_count, other.local_count) == (0, 0)


async def test_counts_are_reported_after_a_lost_connection() -> None:
    async with breakable_nodes() as (server, cluster, one, other):
        assert count_admitted(await one.connect(4)) == 4
        with server.client() as client:
            # As after a failover to a replica that lagged behind.
            client.delete(f"{cluster.prefix}:{KEY}")
            client.client_kill_filter(_type="pubsub")
        await one.node.wait_until(lambda: one.node.counters.total("broker.lost") == 1)
        broker = one.node.redis_broker
        await one.node.wait_until(lambda: broker._subscriber.is_up)
        await pass_time(cluster, 3, one, other)
        assert list(counts_of(server, cluster).values()) == [b"4"]


async def test_number_of_concurrent_reports_is_bounded(cluster: PresenceCluster) -> None:
    async with cluster.node() as node:
        each = limits_node(cluster, node)
        for number in range(600):
            assert count_admitted(await each.connect(1, f"192.0.2.{number}")) == 1
        each.limits._on_beat(True)
        assert each.limits._in_flight == 256
        await each.wait_idle()
        assert not each.limits._unreported


async def test_renamed_node_reports_its_count_again(
    cluster: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with cluster.node() as node:
        each = limits_node(cluster, node)
        acquiring = asyncio.ensure_future(each.connect(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert each.limits._in_flight == 1
        each.limits._session.node = "renamed"
        assert count_admitted(await acquiring) == 1
        await each.wait_idle()
        assert counts_of(shared_redis, cluster)[b"renamed"] == b"1"


async def test_rejected_script_makes_a_node_admit_locally() -> None:
    async with breakable_nodes() as (server, cluster, one, other):
        assert count_admitted(await one.connect(2)) == 2
        with server.client() as client:
            client.delete(f"{cluster.prefix}:{KEY}")
            client.set(f"{cluster.prefix}:{KEY}", "foreign")
        assert count_admitted(await one.connect(3)) == 3
        assert (one.limits.is_degraded, one.local_count) == (True, 3)
        await pass_time(cluster, 2, one, other)
        with server.client() as client:
            client.delete(f"{cluster.prefix}:{KEY}")
        await pass_time(cluster, 3, one, other)
        assert not one.limits.is_degraded
        assert count_admitted(await other.connect(9)) == 2


async def test_release_during_an_outage_takes_effect_later() -> None:
    async with breakable_nodes() as (server, cluster, one, other):
        assert count_admitted(await one.connect(7)) == 7
        server.pause()
        for _ in range(3):
            one.limits.release(ADDRESS)
        await one.node.wait_until(lambda: not one.limits._pipeline.is_up)
        for _ in range(3):
            one.limits.release(ADDRESS)
        server.resume()
        await one.node.wait_until(lambda: one.limits._pipeline.is_up)
        await pass_time(cluster, 3, one, other)
        assert count_admitted(await other.connect(9)) == 6


async def test_lost_grant_of_a_cancelled_request_is_returned() -> None:
    async with breakable_nodes() as (server, cluster, one, other):
        server.pause()
        acquiring = asyncio.ensure_future(one.connect(1))
        await one.node.wait_until(lambda: one.limits._in_flight == 1)
        acquiring.cancel()
        await one.node.wait_until(lambda: not one.limits._pipeline.is_up)
        server.resume()
        await one.node.wait_until(lambda: one.limits._pipeline.is_up)
        await pass_time(cluster, 3, one, other)
        assert counts_of(server, cluster) == {}
        assert (one.limits.tracked_count, one.local_count) == (0, 0)


# --- round trips and expiry


def script_calls(server: RedisServer) -> int:
    with server.client() as client:
        stats: dict[str, Any] = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_unlimited_connections_need_no_round_trip() -> None:
    with redis_server() as server:
        cluster = PresenceCluster(server.url)
        async with cluster.node() as node:
            each = limits_node(cluster, node, LimitKeys(ConnectionLimit(0), ConnectionLimit(0)))
            before = script_calls(server)
            for key in (ADDRESS, ANN):
                assert count_admitted(await each.connect(100, key)) == 100
                await each.disconnect(100, key)
            assert script_calls(server) - before <= 2, "only heartbeats"
            assert each.limits.tracked_count == 0


async def test_requests_of_one_address_are_batched() -> None:
    with redis_server() as server:
        cluster = PresenceCluster(server.url)
        async with cluster.node() as node:
            each = limits_node(cluster, node, LimitKeys(ConnectionLimit(1000), ConnectionLimit(0)))
            await each.wait_idle()
            before = script_calls(server)
            assert count_admitted(await each.connect(500)) == 500
            assert script_calls(server) - before <= 2


async def test_released_counts_expire_in_redis(
    cluster: PresenceCluster, shared_redis: RedisServer
) -> None:
    limits = LimitKeys(ConnectionLimit(7, attempts_per_second=10), ConnectionLimit(7))
    async with cluster.node() as node:
        each = limits_node(cluster, node, limits)
        assert count_admitted([*await each.connect(7), *await each.connect(7, ANN)]) == 14
        key = f"{cluster.prefix}:{KEY}"
        with shared_redis.client() as client:
            assert 800_000 < client.pttl(key) <= 900_000
            await each.disconnect(7)
            await each.disconnect(7, ANN)
            assert 0 < client.pttl(key) <= 2000, "while attempts are counted"
            assert client.keys(f"{cluster.prefix}:*user*") == []


async def test_lasting_count_is_reported_before_it_expires(
    cluster: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with cluster.node() as one, cluster.node() as two:
        lasting, dead = limits_node(cluster, one), limits_node(cluster, two)
        assert count_admitted(await lasting.connect(1, "192.0.2.2")) == 1
        assert count_admitted([*await lasting.connect(2), *await dead.connect(3)]) == 5
        await two.die()
        key = f"{cluster.prefix}:{KEY}"
        with shared_redis.client() as client:
            client.pexpire(key, 60_000)
            await pass_time(cluster, 200, lasting)
            # Reported early, so that the other counter becomes the oldest.
            assert count_admitted(await lasting.connect(1, "192.0.2.2")) == 1
            await pass_time(cluster, 99, lasting)
            assert client.pttl(key) <= 60_000
            await pass_time(cluster, 4, lasting)
            assert client.pttl(key) > 60_000
            assert client.hlen(key) == 1, "the dead node's count is gone"
            assert client.hvals(key) == [b"2"]


async def test_refused_attempt_does_not_extend_the_wait(
    cluster: PresenceCluster,
) -> None:
    limits = LimitKeys(ConnectionLimit(0, attempts_per_second=1), ConnectionLimit(0))
    async with cluster.node() as node:
        each = limits_node(cluster, node, limits)
        assert (await each.connect(3)).count(ErrorCode.LIMIT_RATE) == 1
        for _ in range(5):
            assert await each.connect(1) == [ErrorCode.LIMIT_RATE]
        cluster.clock.advance(1.0)
        assert await each.connect(1) == [None]
