"""Places while Redis is away, slow, full or empty: a node decides alone, and says so."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from client_sdk.contract import ErrorCode
from server.core.limits.keys import Quota, Quotas
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.rigs.limits_cluster import ADDRESS, ANN, Gate, free, gate, pass_time
from tests.kit.rigs.presence_cluster import Quarter

KEY, USER_KEY = "{address@192.0.2.1}:places", "{user@4:acme:ann}:places"


@contextlib.asynccontextmanager
async def breakable() -> AsyncIterator[tuple[RedisServer, Quarter, Gate, Gate]]:
    """Two gates, one of which does not wait for long, and a Redis of their own."""
    with redis_server() as server:
        quarter = Quarter(server.url)
        async with quarter.hall(timeout_seconds=0.5) as one, quarter.hall() as two:
            yield server, quarter, gate(quarter, one, patience_seconds=0.02), gate(quarter, two)


def held(server: RedisServer, quarter: Quarter, key: str = KEY) -> dict[bytes, bytes]:
    with server.client() as client:
        found: dict[bytes, bytes] = client.hgetall(f"{quarter.prefix}:{key}")  # type: ignore[assignment]
        return found


@pytest.fixture
def quarter(shared_redis: RedisServer) -> Quarter:
    return Quarter(shared_redis.url)


async def test_while_redis_is_slow_a_node_decides_alone_and_is_right_again_afterwards() -> None:
    async with breakable() as (server, quarter, one, other):
        assert free(await one.come(2)) == 2
        assert free(await other.come(3)) == 3
        server.pause()
        began = asyncio.get_running_loop().time()
        assert free(await one.come(6)) == 6
        assert asyncio.get_running_loop().time() - began < 0.4, "before Redis is given up"
        assert (one.places.alone, one.local) == (True, 6)
        came = one.places.take(ADDRESS)
        with pytest.raises(StopIteration):
            came.send(None)
        assert one.local == 7, "the next ones do not wait at all"
        one.places.give(ADDRESS)
        assert free(await one.come(1, ANN)) == 1
        server.resume()
        await one.quiet()
        assert not one.places.alone
        assert sorted(held(server, quarter).values()) == [b"3", b"8"]
        assert list(held(server, quarter, USER_KEY).values()) == [b"1"]
        assert free(await other.come(1)) == 0
        await one.go(5)
        assert free(await other.come(9)) == 1


async def test_while_redis_is_down_everybody_is_let_in_at_once_and_counted_when_it_is_back() -> (
    None
):
    async with breakable() as (server, quarter, one, other):
        assert free(await one.come(4)) == 4
        assert free(await one.come(1, ANN)) == 1
        server.kill()
        for _ in range(2):
            assert free(await one.come(2)) == 2
        one.places.give(ANN)
        assert (one.places.alone, one.local) == (True, 4)
        await pass_time(quarter, 3, one, other)
        await other.hall.until(lambda: not other.places._pipeline.up)
        server.start()
        await one.hall.until(lambda: one.places._pipeline.up and other.places._pipeline.up)
        await pass_time(quarter, 3, one, other)
        assert not one.places.alone
        assert list(held(server, quarter).values()) == [b"8"]
        assert free(await other.come(1)) == 0
        assert free(await other.come(9, ANN)) == 7
        assert one.places.tracked == 1


async def test_whoever_comes_and_goes_while_redis_is_down_is_not_remembered() -> None:
    rated = Quotas(Quota(7), Quota(0, 5.0))
    with redis_server() as server:
        quarter = Quarter(server.url)
        async with quarter.hall(timeout_seconds=0.5) as hall:
            one = gate(quarter, hall, rated)
            assert free(await one.come(2)) == 2
            server.kill()
            await pass_time(quarter, 3, one)
            assert not one.places._pipeline.up
            for number in range(100):
                for holder in (f"198.51.100.{number}", ("acme", f"user{number}")):
                    assert free(await one.come(2, holder)) == 2
                    one.places.give(holder)
                    one.places.give(holder)
            assert one.places.tracked == len(one.places._failed) + 1 == 1
            server.start()
            await one.hall.until(lambda: one.places._pipeline.up)
            await pass_time(quarter, 3, one)
            assert list(held(server, quarter).values()) == [b"2"]


async def test_what_redis_has_lost_is_told_to_it_again_with_the_next_beat() -> None:
    async with breakable() as (server, quarter, one, other):
        holders = [f"192.0.2.{each}" for each in range(600)]
        for each in holders:
            assert free(await other.come(2, each)) == 2
        assert free(await one.come(4)) == 4
        with server.client() as client:
            client.flushall()
        await pass_time(quarter, 3, one, other)
        assert sorted(held(server, quarter).values()) == [b"2", b"4"]
        assert free(await one.come(5)) == 1
        assert free(await one.come(9, holders[-1])) == 5
        assert (one.local, other.local) == (0, 0)


async def test_what_may_have_been_lost_with_a_connection_is_told_again() -> None:
    async with breakable() as (server, quarter, one, other):
        assert free(await one.come(4)) == 4
        with server.client() as client:
            # As a failover does to a replica that had not come so far.
            client.delete(f"{quarter.prefix}:{KEY}")
            client.client_kill_filter(_type="pubsub")
        await one.hall.until(lambda: one.hall.counters.total("broker.lost") == 1)
        broker = one.hall.broker
        assert broker is not None
        await one.hall.until(lambda: broker._follower.up)
        await pass_time(quarter, 3, one, other)
        assert list(held(server, quarter).values()) == [b"4"]


async def test_a_bounded_number_of_addresses_is_told_at_a_time(quarter: Quarter) -> None:
    async with quarter.hall() as hall:
        each = gate(quarter, hall)
        for number in range(600):
            assert free(await each.come(1, f"192.0.2.{number}")) == 1
        each.places._on_beat(True)
        assert each.places._on_their_way == 256
        await each.quiet()
        assert not each.places._unsaid


async def test_an_answer_to_what_a_node_said_by_an_earlier_name_is_not_the_last_word(
    quarter: Quarter, shared_redis: RedisServer
) -> None:
    async with quarter.hall() as hall:
        each = gate(quarter, hall)
        coming = asyncio.ensure_future(each.come(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert each.places._on_their_way == 1
        each.places._life.node = "renamed"
        assert free(await coming) == 1
        await each.quiet()
        assert held(shared_redis, quarter)[b"renamed"] == b"1"


async def test_where_redis_refuses_to_count_a_node_decides_alone() -> None:
    async with breakable() as (server, quarter, one, other):
        assert free(await one.come(2)) == 2
        with server.client() as client:
            client.delete(f"{quarter.prefix}:{KEY}")
            client.set(f"{quarter.prefix}:{KEY}", "a stranger's")
        assert free(await one.come(3)) == 3
        assert (one.places.alone, one.local) == (True, 3)
        await pass_time(quarter, 2, one, other)
        with server.client() as client:
            client.delete(f"{quarter.prefix}:{KEY}")
        await pass_time(quarter, 3, one, other)
        assert not one.places.alone
        assert free(await other.come(9)) == 2


async def test_a_place_that_was_given_back_unheard_is_given_back_all_the_same() -> None:
    async with breakable() as (server, quarter, one, other):
        assert free(await one.come(7)) == 7
        server.pause()
        for _ in range(3):
            one.places.give(ADDRESS)
        await one.hall.until(lambda: not one.places._pipeline.up)
        for _ in range(3):
            one.places.give(ADDRESS)
        server.resume()
        await one.hall.until(lambda: one.places._pipeline.up)
        await pass_time(quarter, 3, one, other)
        assert free(await other.come(9)) == 6


async def test_a_place_that_was_granted_unheard_to_one_who_has_gone_is_given_back() -> None:
    async with breakable() as (server, quarter, one, other):
        server.pause()
        coming = asyncio.ensure_future(one.come(1))
        await one.hall.until(lambda: one.places._on_their_way == 1)
        coming.cancel()
        await one.hall.until(lambda: not one.places._pipeline.up)
        server.resume()
        await one.hall.until(lambda: one.places._pipeline.up)
        await pass_time(quarter, 3, one, other)
        assert held(server, quarter) == {}
        assert (one.places.tracked, one.local) == (0, 0)


# --- what it costs, and what stays


def programs_run(server: RedisServer) -> int:
    with server.client() as client:
        stats: dict[str, Any] = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_what_is_not_limited_is_not_asked_for() -> None:
    with redis_server() as server:
        quarter = Quarter(server.url)
        async with quarter.hall() as hall:
            each = gate(quarter, hall, Quotas(Quota(0), Quota(0)))
            before = programs_run(server)
            for holder in (ADDRESS, ANN):
                assert free(await each.come(100, holder)) == 100
                await each.go(100, holder)
            assert programs_run(server) - before <= 2, "the node has said that it lives"
            assert each.places.tracked == 0


async def test_many_of_one_address_are_asked_for_together() -> None:
    with redis_server() as server:
        quarter = Quarter(server.url)
        async with quarter.hall() as hall:
            each = gate(quarter, hall, Quotas(Quota(1000), Quota(0)))
            await each.quiet()
            before = programs_run(server)
            assert free(await each.come(500)) == 500
            assert programs_run(server) - before <= 2


async def test_who_was_there_is_forgotten_by_redis(
    quarter: Quarter, shared_redis: RedisServer
) -> None:
    quotas = Quotas(Quota(7, attempts_per_second=10), Quota(7))
    async with quarter.hall() as hall:
        each = gate(quarter, hall, quotas)
        assert free([*await each.come(7), *await each.come(7, ANN)]) == 14
        key = f"{quarter.prefix}:{KEY}"
        with shared_redis.client() as client:
            assert 800_000 < client.pttl(key) <= 900_000
            await each.go(7)
            await each.go(7, ANN)
            assert 0 < client.pttl(key) <= 2000, "as long as the attempts are remembered"
            assert client.keys(f"{quarter.prefix}:*user*") == []


async def test_what_lasts_is_said_again_before_redis_forgets_it(
    quarter: Quarter, shared_redis: RedisServer
) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        lasting, dead = gate(quarter, one), gate(quarter, two)
        assert free(await lasting.come(1, "192.0.2.2")) == 1
        assert free([*await lasting.come(2), *await dead.come(3)]) == 5
        await two.die()
        key = f"{quarter.prefix}:{KEY}"
        with shared_redis.client() as client:
            client.pexpire(key, 60_000)
            await pass_time(quarter, 200, lasting)
            # It is spoken of before it has to be, and so the other one comes first.
            assert free(await lasting.come(1, "192.0.2.2")) == 1
            await pass_time(quarter, 99, lasting)
            assert client.pttl(key) <= 60_000
            await pass_time(quarter, 4, lasting)
            assert client.pttl(key) > 60_000
            assert client.hlen(key) == 1, "and what the dead had is gone"
            assert client.hvals(key) == [b"2"]


async def test_nobody_is_told_to_wait_for_an_attempt_that_was_not_made(quarter: Quarter) -> None:
    quotas = Quotas(Quota(0, attempts_per_second=1), Quota(0))
    async with quarter.hall() as hall:
        each = gate(quarter, hall, quotas)
        assert (await each.come(3)).count(ErrorCode.LIMIT_RATE) == 1
        for _ in range(5):
            assert await each.come(1) == [ErrorCode.LIMIT_RATE]
        quarter.clock.advance(1.0)
        assert await each.come(1) == [None]
