"""Places of addresses and users are those of all nodes, whichever Redis counts them."""

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
def quarter(request: pytest.FixtureRequest) -> PresenceCluster:
    """What the nodes of one test share, and nobody else."""
    return PresenceCluster(url_of(request))


@contextlib.asynccontextmanager
async def two_nodes(
    quarter: PresenceCluster, quotas: LimitKeys = SEVEN_CONNECTIONS
) -> AsyncIterator[tuple[LimitsNode, LimitsNode]]:
    async with quarter.node() as one, quarter.node() as other:
        yield limits_node(quarter, one, quotas), limits_node(quarter, other, quotas)


@pytest.mark.parametrize("holder", [ADDRESS, ANN])
async def test_the_edge_is_exact_however_many_come_at_once_to_two_nodes(
    quarter: PresenceCluster, holder: str | tuple[str, str]
) -> None:
    async with two_nodes(quarter) as gates:
        outcomes = await asyncio.gather(*(each.connect(20, holder) for each in gates))
        assert count_admitted([*outcomes[0], *outcomes[1]]) == 7
        for each in gates:
            with pytest.raises(LimitError, match="may have 7 connections") as refused:
                await each.limits.acquire(holder)
            assert refused.value.details == {"limit": 7}
            assert each.local_count == 0


async def test_a_place_that_was_given_back_is_free_at_the_other_node(
    quarter: PresenceCluster,
) -> None:
    async with two_nodes(quarter) as (one, other):
        assert count_admitted(await one.connect(7)) == 7
        assert count_admitted(await other.connect(1)) == 0
        await one.disconnect(2)
        assert count_admitted(await other.connect(5)) == 2
        await other.disconnect(2)
        await one.disconnect(5)
        assert (one.limits.tracked_count, other.limits.tracked_count) == (0, 0)
        assert count_admitted(await other.connect(9)) == 7


async def test_addresses_and_users_do_not_count_for_each_other(quarter: PresenceCluster) -> None:
    async with two_nodes(quarter) as (one, other):
        for holder in (ADDRESS, "192.0.2.2", "a:b}{", ANN, ("acme:ann", ""), ("other", "ann")):
            assert count_admitted(await one.connect(4, holder)) == 4
            assert count_admitted(await other.connect(4, holder)) == 3


async def test_attempts_are_counted_on_all_nodes_together(quarter: PresenceCluster) -> None:
    quotas = LimitKeys(ConnectionLimit(0, attempts_per_second=5), ConnectionLimit(0))
    async with two_nodes(quarter, quotas) as (one, other):
        outcomes = [*await one.connect(6), *await other.connect(9)]
        assert outcomes == [None] * 10 + [ErrorCode.LIMIT_RATE] * 5
        with pytest.raises(LimitError, match="too often") as refused:
            await one.limits.acquire(ADDRESS)
        assert refused.value.retry_after_ms == 200
        quarter.clock.advance(1.0)
        outcomes = [*await other.connect(3), *await one.connect(3)]
        assert outcomes == [None] * 5 + [ErrorCode.LIMIT_RATE]
        assert await one.connect(1, "192.0.2.2") == [None]
        quarter.clock.advance(100.0)
        assert (await one.connect(12)).count(None) == 10


async def test_who_finds_no_place_has_made_an_attempt_and_one_refused_has_not(
    quarter: PresenceCluster,
) -> None:
    quotas = LimitKeys(ConnectionLimit(1, attempts_per_second=2), ConnectionLimit(0))
    async with two_nodes(quarter, quotas) as (one, other):
        assert await one.connect(1) == [None]
        full, often = ErrorCode.LIMIT_CONNECTIONS, ErrorCode.LIMIT_RATE
        assert await other.connect(5) == [full] * 3 + [often] * 2
        quarter.clock.advance(0.5)
        assert await one.connect(2) == [full, often]


async def test_a_node_that_died_gives_its_places_back_within_its_lease(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as one, quarter.node() as two:
        gone, stays = limits_node(quarter, one), limits_node(quarter, two)
        assert count_admitted(await gone.connect(5)) == 5
        assert count_admitted(await gone.connect(7, ANN)) == 7
        assert count_admitted(await stays.connect(5)) == 2
        await one.die()
        await pass_time(quarter, 7, stays)
        assert count_admitted(await stays.connect(1)) == 0
        await pass_time(quarter, 5, stays)
        assert count_admitted(await stays.connect(9)) == 5
        assert count_admitted(await stays.connect(9, ANN)) == 7


async def test_a_node_that_was_given_up_and_lives_has_its_places_again(
    quarter: PresenceCluster,
) -> None:
    async with two_nodes(quarter) as (sleeper, other):
        assert count_admitted(await sleeper.connect(5)) == 5
        await pass_time(quarter, 12, other)
        assert count_admitted(await other.connect(1)) == 1
        await pass_time(quarter, 4, sleeper, other)
        assert count_admitted(await other.connect(5)) == 1, "it said what it has, by another name"
        await sleeper.disconnect(5)
        assert count_admitted(await other.connect(9)) == 5


async def test_whoever_has_gone_before_the_answer_came_leaves_nothing(
    quarter: PresenceCluster,
) -> None:
    async with two_nodes(quarter) as (one, other):
        in_time = turns = 0
        while in_time < 3:
            coming = asyncio.ensure_future(one.limits.acquire(ANN))
            for _ in range(turns):
                await asyncio.sleep(0)
            in_time += coming.done()
            if not coming.cancel():
                one.limits.release(ANN)
            with contextlib.suppress(asyncio.CancelledError):
                await coming
            await one.wait_idle()
            assert one.limits.tracked_count == 0
            turns += 1
        assert turns > 3
        assert count_admitted(await other.connect(9, ANN)) == 7
