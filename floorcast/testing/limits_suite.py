"""The suite that shared limits must pass: connections and attempts, counted over all nodes."""

import asyncio
import contextlib

import pytest

from client_sdk.contract import ErrorCode
from floorcast.testing.limits import ADDRESS, ANN, LimitsCluster, count_admitted
from server.core.errors import LimitError


class SharedLimitsSuite:
    """Subclass it, and add a fixture `cluster` that returns a `LimitsCluster` of your limits.

    It needs pytest-asyncio in its auto mode. Example:

        class TestMyLimits(SharedLimitsSuite):
            @pytest.fixture
            def cluster(self) -> MyCluster:
                return MyCluster()
    """

    @pytest.mark.parametrize("key", [ADDRESS, ANN])
    async def test_two_nodes_enforce_the_limit_exactly(
        self, cluster: LimitsCluster, key: str | tuple[str, str]
    ) -> None:
        async with cluster.two_nodes(connections=7) as nodes:
            outcomes = await asyncio.gather(*(each.connect(20, key) for each in nodes))
            assert count_admitted([*outcomes[0], *outcomes[1]]) == 7
            for each in nodes:
                with pytest.raises(LimitError, match="may have 7 connections") as refused:
                    await each.limits.acquire(key)
                assert refused.value.details == {"limit": 7}
                assert not each.limits.is_degraded

    async def test_released_connection_is_free_on_the_other_node(
        self, cluster: LimitsCluster
    ) -> None:
        async with cluster.two_nodes(connections=7) as (one, other):
            assert count_admitted(await one.connect(7)) == 7
            assert count_admitted(await other.connect(1)) == 0
            await one.disconnect(2)
            assert count_admitted(await other.connect(5)) == 2
            await other.disconnect(2)
            await one.disconnect(5)
            assert count_admitted(await other.connect(9)) == 7

    async def test_addresses_and_users_are_counted_separately(self, cluster: LimitsCluster) -> None:
        async with cluster.two_nodes(connections=7) as (one, other):
            for key in (ADDRESS, "192.0.2.2", "a:b}{", ANN, ("acme:ann", ""), ("other", "ann")):
                assert count_admitted(await one.connect(4, key)) == 4
                assert count_admitted(await other.connect(4, key)) == 3

    async def test_attempts_are_counted_over_all_nodes(self, cluster: LimitsCluster) -> None:
        async with cluster.two_nodes(connections=0, attempts_per_second=5) as (one, other):
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

    async def test_only_attempts_within_the_rate_are_counted(self, cluster: LimitsCluster) -> None:
        async with cluster.two_nodes(connections=1, attempts_per_second=2) as (one, other):
            assert await one.connect(1) == [None]
            full, often = ErrorCode.LIMIT_CONNECTIONS, ErrorCode.LIMIT_RATE
            assert await other.connect(5) == [full] * 3 + [often] * 2
            cluster.clock.advance(0.5)
            assert await one.connect(2) == [full, often]

    async def test_cancelled_acquire_leaves_no_count(self, cluster: LimitsCluster) -> None:
        async with cluster.two_nodes(connections=7) as (one, other):
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
                iterations += 1
            assert count_admitted(await other.connect(9, ANN)) == 7
