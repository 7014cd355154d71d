"""Connection limits of addresses and users over all nodes, with each Redis backend."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from floorcast.testing.limits import LimitsCluster
from floorcast.testing.limits_suite import SharedLimitsSuite
from server.core.limits.keys import ConnectionLimit, LimitKeys
from tests.backends.conftest import URLS, url_of
from tests.kit.rigs.limits_cluster import (
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


class RedisLimitsCluster(LimitsCluster):
    """Two nodes of a presence cluster with shared limits."""

    def __init__(self, cluster: PresenceCluster) -> None:
        super().__init__()
        self.clock = cluster.clock
        self._cluster = cluster

    @contextlib.asynccontextmanager
    async def two_nodes(
        self, *, connections: int, attempts_per_second: float = 0.0
    ) -> AsyncIterator[tuple[LimitsNode, LimitsNode]]:
        limits = LimitKeys(
            ConnectionLimit(connections, attempts_per_second), ConnectionLimit(connections)
        )
        async with two_nodes(self._cluster, limits) as nodes:
            yield nodes
            for each in nodes:
                assert each.local_count == 0


class TestSharedLimits(SharedLimitsSuite):
    """Our limits pass the suite that applications use for theirs."""

    @pytest.fixture(params=[*URLS])
    def cluster(self, request: pytest.FixtureRequest) -> RedisLimitsCluster:
        """A cluster with storage of its own for each test."""
        return RedisLimitsCluster(PresenceCluster(url_of(request)))


@contextlib.asynccontextmanager
async def two_nodes(
    cluster: PresenceCluster, limits: LimitKeys = SEVEN_CONNECTIONS
) -> AsyncIterator[tuple[LimitsNode, LimitsNode]]:
    async with cluster.node() as one, cluster.node() as other:
        yield limits_node(cluster, one, limits), limits_node(cluster, other, limits)


async def test_released_connections_leave_nothing_on_a_node(cluster: PresenceCluster) -> None:
    async with two_nodes(cluster) as (one, other):
        assert count_admitted(await one.connect(7)) == 7
        await one.disconnect(2)
        assert count_admitted(await other.connect(5)) == 2
        await other.disconnect(2)
        await one.disconnect(5)
        assert (one.limits.tracked_count, other.limits.tracked_count) == (0, 0)


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
