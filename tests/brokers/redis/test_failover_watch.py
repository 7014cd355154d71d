"""Watching the Sentinels: a host that vanishes must not leave the watch deaf."""

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from server.brokers import Address
from server.brokers.redis.connection.failover import FailoverWatch
from server.core.counters import Counters
from server.tasks import TaskOwner
from tests.kit.network.ports import free_ports
from tests.kit.network.tcp_proxy import Proxy
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer, redis_server

TIMEOUT_SECONDS = 0.2


@pytest.fixture
def sentinel() -> Iterator[tuple[RedisServer, int]]:
    """A Redis and its TCP port; to the watch it looks like a Sentinel."""
    [port] = free_ports(1)
    with redis_server("--port", str(port)) as server:
        yield server, port


@contextlib.asynccontextmanager
async def watching(proxy: Proxy) -> AsyncIterator[list[str]]:
    """Watch a Redis behind a proxy as if it were a Sentinel; yields the calls of the watch."""
    calls: list[str] = []

    async def on_failover() -> None:
        calls.append("failover")

    watch = FailoverWatch(
        Address.parse(f"redis+sentinel://127.0.0.1:{proxy.port}/main"),
        TaskOwner(Counters()),
        on_failover,
        timeout_seconds=TIMEOUT_SECONDS,
    )
    watch.start()
    try:
        yield calls
    finally:
        await watch.stop()


def announce(redis: RedisServer, service: str) -> int:
    """Announce a failover as a Sentinel does; returns how many heard it."""
    with redis.client() as client:
        return int(client.publish("+switch-master", f"{service} old 1 new 2"))


def ping_count(redis: RedisServer) -> int:
    with redis.client() as client:
        statistics = client.info("commandstats")
    return int(statistics.get("cmdstat_ping", {"calls": 0})["calls"])


async def test_watch_reports_failovers_of_its_own_service(
    sentinel: tuple[RedisServer, int],
) -> None:
    redis, port = sentinel
    async with Proxy(port) as proxy, watching(proxy) as calls:
        await until(lambda: announce(redis, "other") == 1)
        assert calls == []
        await until(lambda: announce(redis, "main") and calls)


async def test_watch_keeps_its_connection_to_a_quiet_sentinel(
    sentinel: tuple[RedisServer, int],
) -> None:
    redis, port = sentinel
    async with Proxy(port) as proxy, watching(proxy):
        await until(lambda: announce(redis, "other") == 1)
        pings = ping_count(redis)
        await until(lambda: ping_count(redis) >= pings + 3)
        assert proxy.accepted_count == 1


async def test_watch_leaves_a_sentinel_whose_host_has_vanished(
    sentinel: tuple[RedisServer, int],
) -> None:
    redis, port = sentinel
    async with Proxy(port) as proxy, watching(proxy) as calls:
        await until(lambda: announce(redis, "main") and calls)
        [vanished] = proxy.connections
        vanished.blackhole()
        calls.clear()
        await until(lambda: announce(redis, "main") and calls)
