"""Limits of addresses and users over two real servers and one Redis: they hold for both."""

import asyncio

import pytest

from client_sdk.contract import ErrorCode
from server.brokers import RedisPresence
from server.core.errors import FloorcastError
from tests.journeys.test_limits import try_connect
from tests.journeys.test_nodes import pass_time, two_nodes
from tests.kit.clients.recovering import RecoveringClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.server.in_process import RunningServer

PER_IP, PER_USER = "limits.connections_per_ip", "limits.connections_per_user"


def cut(*clients: RawClient | None) -> None:
    for client in clients:
        if client is not None:
            client.cut()


async def connect_when_free(node: RunningServer) -> RawClient:
    """Connect as soon as what another had is known to be free."""
    async with asyncio.timeout(1):
        while True:
            code, client = await try_connect(node)
            if client is not None:
                return client
            assert code == "limit.connections"


async def until_empty(redis: RedisServer, *nodes: RunningServer) -> None:
    """Nothing is left of any client, also in Redis."""
    for floor in nodes:
        await floor.until_empty()
    pattern = f"{nodes[0].server.settings.broker.prefix}:*:places"
    with redis.client() as client:
        async with asyncio.timeout(1):
            # Attempts are remembered a little longer.
            while any(
                name[:1] != b":" for key in client.keys(pattern) for name in client.hkeys(key)
            ):
                await asyncio.sleep(0.001)


@pytest.mark.behaviour("C4", "C5")
@pytest.mark.parametrize("limit", [PER_IP, PER_USER])
async def test_a_limit_is_exact_when_connections_arrive_at_two_nodes_at_once(
    limit: str, shared_redis: RedisServer
) -> None:
    settings: dict[str, object] = {limit: 7, "limits.connects_per_second_per_ip": 0}
    async with two_nodes(shared_redis, **settings) as floors:
        arriving = [try_connect(floor) for _ in range(10) for floor in floors]
        results = await asyncio.gather(*arriving)
        codes = sorted(code for code, _ in results)
        assert codes == ["limit.connections"] * 13 + ["ok"] * 7
        inside = [client for _, client in results if client is not None]
        inside.pop().cut()
        inside.append(await connect_when_free(floors[1]))
        assert (await try_connect(floors[0]))[0] == "limit.connections"
        assert [each.server.statistics.snapshot()["limits_local"] for each in floors] == [0, 0]
        cut(*inside)
        await until_empty(shared_redis, *floors)


async def test_attempts_at_two_nodes_count_for_one_address(shared_redis: RedisServer) -> None:
    async with two_nodes(shared_redis, **{"limits.connects_per_second_per_ip": 5}) as floors:
        results = [await try_connect(floor) for _ in range(6) for floor in floors]
        assert [code for code, _ in results] == ["ok"] * 10 + ["limit.rate"] * 2
        floors[0].clock.advance(1)
        again = [await try_connect(floors[1]) for _ in range(6)]
        assert [code for code, _ in again] == ["ok"] * 5 + ["limit.rate"]
        cut(*(client for _, client in (*results, *again)))


async def test_a_user_in_both_namespaces_of_a_connection_has_one_place(
    shared_redis: RedisServer,
) -> None:
    async with two_nodes(shared_redis, **{PER_USER: 2}) as (one, two):
        both = await RawClient.connect(one.port, one.token())
        await both.join(one.token(), namespace="/session")
        other = await RawClient.connect(two.port, two.token())
        assert (await try_connect(two))[0] == "limit.connections"
        both.send("41/market,")
        await until(lambda: len(one.server.registry) == 1)
        assert (await try_connect(two))[0] == "limit.connections"
        both.send("41/session,")
        cut(both, other, await connect_when_free(two))
        await until_empty(shared_redis, one, two)


async def test_who_was_refused_and_stays_has_no_place(shared_redis: RedisServer) -> None:
    async with two_nodes(shared_redis, **{PER_USER: 1}) as (one, two):
        first = await connect_when_free(two)
        refused = await RawClient.open(one.port)
        await refused.text()
        refused.send('40/market,{"token":"' + one.token() + '"}')
        assert '"limit.connections"' in await refused.text()
        cut(first)
        cut(refused, await connect_when_free(one))
        await until_empty(shared_redis, one, two)


async def test_nobody_is_asked_about_those_without_a_token(shared_redis: RedisServer) -> None:
    settings: dict[str, object] = {PER_USER: 1, "auth.market_optional": True}
    async with two_nodes(shared_redis, **settings) as (one, two):
        clients = [await RawClient.connect(each.port, None) for each in (one, two, two)]
        with shared_redis.client() as client:
            prefix = one.server.settings.broker.prefix
            [key] = client.keys(f"{prefix}:*:places")
            assert b"address@127.0.0.1" in key
        cut(*clients)
        await until_empty(shared_redis, one, two)


async def test_each_node_counts_for_itself_where_it_is_told_to(shared_redis: RedisServer) -> None:
    async with two_nodes(shared_redis, **{PER_IP: 2, "limits.shared": False}) as floors:
        for floor in floors:
            results = [await try_connect(floor) for _ in range(3)]
            assert [code for code, _ in results] == ["ok", "ok", "limit.connections"]
            assert floor.server.statistics.snapshot()["limits_local"] == 0
            cut(*(client for _, client in results))
            await until_empty(shared_redis, floor)


async def test_while_redis_is_away_a_node_goes_by_its_own_limits_and_says_so() -> None:
    with redis_server() as redis:
        async with two_nodes(redis, **{PER_IP: 3}) as (one, two):
            first = [await try_connect(floor) for floor in (one, two, two)]
            redis.pause()
            own = [await try_connect(one) for _ in range(3)]
            assert [code for code, _ in own] == ["ok", "ok", "limit.connections"]
            told = one.server.statistics.snapshot()
            # Two by their address and their user each, one by its address alone.
            assert (told["limits_alone"], told["limits_local"]) == (1, 4)
            redis.resume()
            assembly = one.server.presence
            assert isinstance(assembly, RedisPresence)
            await until(lambda: assembly.pipeline.is_up)
            await pass_time(3, one, two)
            assert one.server.statistics.snapshot()["limits_alone"] == 0
            cut(first[1][1])
            await until(lambda: len(two.server.registry) == 1)
            assert (await try_connect(two))[0] == "limit.connections", "four are in still"
            cut(*(client for _, client in (*first, *own)))
            await until_empty(redis, one, two)


async def test_who_left_while_being_counted_leaves_nothing() -> None:
    with redis_server() as redis:
        settings: dict[str, object] = {
            PER_USER: 1,
            PER_IP: 0,
            "limits.connects_per_second_per_ip": 0,
        }
        async with two_nodes(redis, **settings) as (one, two):
            client = await RawClient.open(one.port)
            await client.text()
            redis.pause()
            client.send('40/market,{"token":"' + one.token() + '"}')
            [connection] = one.server.sockets.connections()
            await until(lambda: connection.busy)
            client.cut()
            await one.until_empty()
            redis.resume()
            cut(await connect_when_free(two))
            await until_empty(redis, one, two)
            assert one.server.statistics.snapshot()["limits_local"] == 0


async def test_who_left_before_the_connection_was_open_leaves_nothing() -> None:
    with redis_server() as redis:
        settings: dict[str, object] = {PER_IP: 1, PER_USER: 0}
        async with two_nodes(redis, **settings) as (one, two):
            redis.pause()
            opening = asyncio.ensure_future(RawClient.open(one.port))
            await until(lambda: one.server.connection_limits.open_count == 1)
            opening.cancel()
            await asyncio.wait([opening])
            redis.resume()
            await one.until_empty()
            cut(await connect_when_free(two))
            await until_empty(redis, one, two)
            assert one.server.statistics.snapshot()["limits_local"] == 0


async def test_who_is_counted_while_the_server_begins_to_drain_is_turned_away() -> None:
    with redis_server() as redis:
        async with two_nodes(redis) as (one, two):
            redis.pause()
            opening = asyncio.ensure_future(RawClient.open(one.port))
            await until(lambda: one.server.connection_limits.open_count == 1)
            one.server.admission.drain_error = FloorcastError(
                ErrorCode.SERVER_DRAINING, "going down"
            )
            with pytest.raises(ConnectionError, match="503"):
                await opening
            assert not any(one.residue().values())
            redis.resume()
            await until_empty(redis, one, two)


async def test_who_comes_back_has_the_place_of_the_connection_that_is_half_open(
    shared_redis: RedisServer,
) -> None:
    async with two_nodes(shared_redis, **{PER_USER: 1}) as (one, two):
        ann = RecoveringClient(one, "ann", "/market")
        await ann.connect()
        half_open, ann.client = ann.wire, None
        await ann.connect()
        assert ann.recovered
        await half_open.until_closed()
        assert (await try_connect(two))[0] == "limit.connections"
        half_open, ann.client, ann.node = ann.wire, None, two
        await ann.connect()
        assert ann.recovered, "the same from node to node"
        await half_open.until_closed()
        assert (await try_connect(one))[0] == "limit.connections"
        ann.wire.cut()
