"""Places of addresses and users are those of all nodes, whichever Redis counts them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError
from server.core.limits.keys import Quota, Quotas
from tests.backends.conftest import URLS, url_of
from tests.kit.rigs.limits_cluster import ADDRESS, ANN, SEVEN, Gate, free, gate, pass_time
from tests.kit.rigs.presence_cluster import Quarter


@pytest.fixture(params=[*URLS])
def quarter(request: pytest.FixtureRequest) -> Quarter:
    """What the nodes of one test share, and nobody else."""
    return Quarter(url_of(request))


@contextlib.asynccontextmanager
async def two_gates(quarter: Quarter, quotas: Quotas = SEVEN) -> AsyncIterator[tuple[Gate, Gate]]:
    async with quarter.hall() as one, quarter.hall() as other:
        yield gate(quarter, one, quotas), gate(quarter, other, quotas)


@pytest.mark.parametrize("holder", [ADDRESS, ANN])
async def test_the_edge_is_exact_however_many_come_at_once_to_two_nodes(
    quarter: Quarter, holder: str | tuple[str, str]
) -> None:
    async with two_gates(quarter) as gates:
        outcomes = await asyncio.gather(*(each.come(20, holder) for each in gates))
        assert free([*outcomes[0], *outcomes[1]]) == 7
        for each in gates:
            with pytest.raises(LimitError, match="may have 7 connections") as refused:
                await each.places.take(holder)
            assert refused.value.details == {"limit": 7}
            assert each.local == 0


async def test_a_place_that_was_given_back_is_free_at_the_other_node(quarter: Quarter) -> None:
    async with two_gates(quarter) as (one, other):
        assert free(await one.come(7)) == 7
        assert free(await other.come(1)) == 0
        await one.go(2)
        assert free(await other.come(5)) == 2
        await other.go(2)
        await one.go(5)
        assert (one.places.tracked, other.places.tracked) == (0, 0)
        assert free(await other.come(9)) == 7


async def test_addresses_and_users_do_not_count_for_each_other(quarter: Quarter) -> None:
    async with two_gates(quarter) as (one, other):
        for holder in (ADDRESS, "192.0.2.2", "a:b}{", ANN, ("acme:ann", ""), ("other", "ann")):
            assert free(await one.come(4, holder)) == 4
            assert free(await other.come(4, holder)) == 3


async def test_attempts_are_counted_on_all_nodes_together(quarter: Quarter) -> None:
    quotas = Quotas(Quota(0, attempts_per_second=5), Quota(0))
    async with two_gates(quarter, quotas) as (one, other):
        outcomes = [*await one.come(6), *await other.come(9)]
        assert outcomes == [None] * 10 + [ErrorCode.LIMIT_RATE] * 5
        with pytest.raises(LimitError, match="too often") as refused:
            await one.places.take(ADDRESS)
        assert refused.value.retry_after_ms == 200
        quarter.clock.advance(1.0)
        outcomes = [*await other.come(3), *await one.come(3)]
        assert outcomes == [None] * 5 + [ErrorCode.LIMIT_RATE]
        assert await one.come(1, "192.0.2.2") == [None]
        quarter.clock.advance(100.0)
        assert (await one.come(12)).count(None) == 10


async def test_who_finds_no_place_has_made_an_attempt_and_one_refused_has_not(
    quarter: Quarter,
) -> None:
    quotas = Quotas(Quota(1, attempts_per_second=2), Quota(0))
    async with two_gates(quarter, quotas) as (one, other):
        assert await one.come(1) == [None]
        full, often = ErrorCode.LIMIT_CONNECTIONS, ErrorCode.LIMIT_RATE
        assert await other.come(5) == [full] * 3 + [often] * 2
        quarter.clock.advance(0.5)
        assert await one.come(2) == [full, often]


async def test_a_node_that_died_gives_its_places_back_within_its_lease(quarter: Quarter) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        gone, stays = gate(quarter, one), gate(quarter, two)
        assert free(await gone.come(5)) == 5
        assert free(await gone.come(7, ANN)) == 7
        assert free(await stays.come(5)) == 2
        await one.die()
        await pass_time(quarter, 7, stays)
        assert free(await stays.come(1)) == 0
        await pass_time(quarter, 5, stays)
        assert free(await stays.come(9)) == 5
        assert free(await stays.come(9, ANN)) == 7


async def test_a_node_that_was_given_up_and_lives_has_its_places_again(quarter: Quarter) -> None:
    async with two_gates(quarter) as (sleeper, other):
        assert free(await sleeper.come(5)) == 5
        await pass_time(quarter, 12, other)
        assert free(await other.come(1)) == 1
        await pass_time(quarter, 4, sleeper, other)
        assert free(await other.come(5)) == 1, "it said what it has, by another name"
        await sleeper.go(5)
        assert free(await other.come(9)) == 5


async def test_whoever_has_gone_before_the_answer_came_leaves_nothing(quarter: Quarter) -> None:
    async with two_gates(quarter) as (one, other):
        in_time = turns = 0
        while in_time < 3:
            coming = asyncio.ensure_future(one.places.take(ANN))
            for _ in range(turns):
                await asyncio.sleep(0)
            in_time += coming.done()
            if not coming.cancel():
                one.places.give(ANN)
            with contextlib.suppress(asyncio.CancelledError):
                await coming
            await one.quiet()
            assert one.places.tracked == 0
            turns += 1
        assert turns > 3
        assert free(await other.come(9, ANN)) == 7
