"""Connection limits of addresses and users over all nodes, with each Redis backend."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError
from server.core.limits.keys import ConnectionLimit, LimitKeys
from tests.backends.conftest import URLS, url_of
from tests.kit.rigs.limits_cluster import (
    ADDRESS,
    ANN,
    SEVEN_CONNECTIONS,
    LimitsNode,
    count_admitted,
    limits_node,
    pass_time,
)
from tests.kit.rigs.presence_cluster import PresenceCluster


@pytest.fixture(params=[*URLS])
def cluster(request: pytest.FixtureRequest) -> PresenceCluster:
    """A presence cluster with storage of its own for each test."""
    return PresenceCluster(url_of(request))


@contextlib.asynccontextmanager
async def two_nodes(
    cluster: PresenceCluster, limits: LimitKeys = SEVEN_CONNECTIONS
) -> AsyncIterator[tuple[LimitsNode, LimitsNode]]:
    async with cluster.node() as one, cluster.node() as other:
        yield limits_node(cluster, one, limits), limits_node(cluster, other, limits)


@pytest.mark.parametrize("key", [ADDRESS, ANN])
async def test_two_nodes_enforce_the_limit_exactly(
    cluster: PresenceCluster, key: str | tuple[str, str]
) -> None:
    async with two_nodes(cluster) as nodes:
        outcomes = await asyncio.gather(*(each.connect(20, key) for each in nodes))
        assert count_admitted([*outcomes[0], *outcomes[1]]) == 7
        for each in nodes:
            with pytest.raises(LimitError, match="may have 7 connections") as refused:
                await each.limits.acquire(key)
            assert refused.value.details == {"limit": 7}
            assert each.local_count == 0


async def test_released_connection_is_free_on_the_other_node(
    cluster: PresenceCluster,
) -> None:
    async with two_nodes(cluster) as (one, other):
        assert count_admitted(await one.connect(7)) == 7
        assert count_admitted(await other.connect(1)) == 0
        await one.disconnect(2)
        assert count_admitted(await other.connect(5)) == 2
        await other.disconnect(2)
        await one.disconnect(5)
        assert (one.limits.tracked_count, other.limits.tracked_count) == (0, 0)
        assert count_admitted(await other.connect(9)) == 7


async def test_addresses_and_users_are_counted_separately(cluster: PresenceCluster) -> None:
    async with two_nodes(cluster) as (one, other):
        for key in (ADDRESS, "192.0.2.2", "a:b}{", ANN, ("acme:ann", ""), ("other", "ann")):
            assert count_admitted(await one.connect(4, key)) == 4
            assert count_admitted(await other.connect(4, key)) == 3


async def test_attempts_are_counted_over_all_nodes(cluster: PresenceCluster) -> None:
    limits = LimitKeys(ConnectionLimit(0, attempts_per_second=5), ConnectionLimit(0))
    async with two_nodes(cluster, limits) as (one, other):
        outcomes = [*await one.connect(6), *await other.connect(9)]
        assert outcomes == [None] * 10 + [ErrorCode.LIMIT_RATE] * 5
        with pytest.raises(LimitError, match="too many connection attempts") as refused:
            await one.limits.acquire(ADDRESS)
        assert refused.value.retry_after_ms == 200
        cluster.clock.advance(1.0)
        outcomes = [*await other.connect(3), *await one.connect(3)]
        assert outcomes == [None] * 5 + [ErrorCode.LIMIT_RATE]
        assert await one.connect(1, "192.0.2.2") == [None]
        cluster.clock.advance(100.0)
        assert (await one.connect(12)).count(None) == 10


async def test_only_attempts_within_the_rate_are_counted(
    cluster: PresenceCluster,
) -> None:
    limits = LimitKeys(ConnectionLimit(1, attempts_per_second=2), ConnectionLimit(0))
    async with two_nodes(cluster, limits) as (one, other):
        assert await one.connect(1) == [None]
        full, often = ErrorCode.LIMIT_CONNECTIONS, ErrorCode.LIMIT_RATE
        assert await other.connect(5) == [full] * 3 + [often] * 2
        cluster.clock.advance(0.5)
        assert await one.connect(2) == [full, often]


async def test_counts_of_a_dead_node_are_freed_after_its_lease(
    cluster: PresenceCluster,
) -> None:
    async with cluster.node() as one, cluster.node() as two:
        dead, alive = limits_node(cluster, one), limits_node(cluster, two)
        assert count_admitted(await dead.connect(5)) == 5
        assert count_admitted(await dead.connect(7, ANN)) == 7
        assert count_admitted(await alive.connect(5)) == 2
        await one.die()
        await pass_time(cluster, 7, alive)
        assert count_admitted(await alive.connect(1)) == 0
        await pass_time(cluster, 5, alive)
        assert count_admitted(await alive.connect(9)) == 5
        assert count_admitted(await alive.connect(9, ANN)) == 7


async def test_node_declared_dead_restores_its_counts(
    cluster: PresenceCluster,
) -> None:
    async with two_nodes(cluster) as (sleeper, other):
        assert count_admitted(await sleeper.connect(5)) == 5
        await pass_time(cluster, 12, other)
        assert count_admitted(await other.connect(1)) == 1
        await pass_time(cluster, 4, sleeper, other)
        assert count_admitted(await other.connect(5)) == 1, "it reported its count under a new name"
        await sleeper.disconnect(5)
        assert count_admitted(await other.connect(9)) == 5


async def test_cancelled_acquire_leaves_no_count(
    cluster: PresenceCluster,
) -> None:
    async with two_nodes(cluster) as (one, other):
        in_time = iterations = 0
        while in_time < 3:
            acquiring = asyncio.ensure_future(one.limits.acquire(ANN))
            for _ in range(iterations):
                await asyncio.sleep(0)
            in_time += acquiring.done()
            if not acquiring.cancel():
                one.limits.release(ANN)
            with contextlib.suppress(asyncio.CancelledError):
                await acquiring
            await one.wait_idle()
            assert one.limits.tracked_count == 0
            iterations += 1
        assert iterations > 3
        assert count_admitted(await other.connect(9, ANN)) == 7
