"""Test address and user limits shared by two real servers over one Redis."""

import asyncio

import pytest

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError
from tests.journeys.test_limits import try_connect
from tests.kit.clients.recovering import RecoveringClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.server.in_process import RunningServer
from tests.kit.server.nodes import Node, nodes, pass_time

PER_IP, PER_USER = "limits.connections_per_ip", "limits.connections_per_user"


def cut(*clients: RawClient | None) -> None:
    for client in clients:
        if client is not None:
            client.cut()


async def connect_when_free(node: RunningServer) -> RawClient:
    """Connect as soon as another client's limit slot is released."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while True:
            code, client = await try_connect(node)
            if client is not None:
                return client
            assert code == "limit.connections"


async def until_empty(redis: RedisServer, *cluster: Node) -> None:
    """Wait until neither the servers nor Redis hold anything for a client."""
    for node in cluster:
        await node.until_empty()
    pattern = f"{cluster[0].prefix}:*:places"
    with redis.client() as client:
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            # Connect rates are kept a little longer.
            while any(
                name[:1] != b":" for key in client.keys(pattern) for name in client.hkeys(key)
            ):
                await asyncio.sleep(0.001)


@pytest.mark.behaviour("C4", "C5")
@pytest.mark.parametrize("limit", [PER_IP, PER_USER])
async def test_shared_connection_limit_is_exact_on_two_nodes(
    limit: str, shared_redis: RedisServer
) -> None:
    settings: dict[str, object] = {limit: 7, "limits.connects_per_second_per_ip": 0}
    async with nodes(shared_redis, **settings) as cluster:
        arriving = [try_connect(node) for _ in range(10) for node in cluster]
        results = await asyncio.gather(*arriving)
        codes = sorted(code for code, _ in results)
        assert codes == ["limit.connections"] * 13 + ["ok"] * 7
        inside = [client for _, client in results if client is not None]
        inside.pop().cut()
        inside.append(await connect_when_free(cluster[1]))
        assert (await try_connect(cluster[0]))[0] == "limit.connections"
        assert [each.server.statistics.snapshot()["limits_local"] for each in cluster] == [0, 0]
        cut(*inside)
        await until_empty(shared_redis, *cluster)


async def test_connects_at_two_nodes_share_one_rate_limit(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, **{"limits.connects_per_second_per_ip": 5}) as cluster:
        results = [await try_connect(node) for _ in range(6) for node in cluster]
        assert [code for code, _ in results] == ["ok"] * 10 + ["limit.rate"] * 2
        cluster[0].clock.advance(1)
        later = [await try_connect(cluster[1]) for _ in range(6)]
        assert [code for code, _ in later] == ["ok"] * 5 + ["limit.rate"]
        cut(*(client for _, client in (*results, *later)))


async def test_user_in_both_namespaces_counts_once(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis, **{PER_USER: 2}) as (one, two):
        both = await RawClient.connect(one.port, one.token())
        await both.join(one.token(), namespace="/session")
        other = await RawClient.connect(two.port, two.token())
        assert (await try_connect(two))[0] == "limit.connections"
        both.send("41/market,")
        await until(lambda: len(one.server.clients.registry) == 1)
        assert (await try_connect(two))[0] == "limit.connections"
        both.send("41/session,")
        cut(both, other, await connect_when_free(two))
        await until_empty(shared_redis, one, two)


async def test_refused_client_holds_no_limit_slot(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, **{PER_USER: 1}) as (one, two):
        first = await connect_when_free(two)
        refused = await RawClient.open(one.port)
        await refused.text()
        refused.send('40/market,{"token":"' + one.token() + '"}')
        assert '"limit.connections"' in await refused.text()
        cut(first)
        cut(refused, await connect_when_free(one))
        await until_empty(shared_redis, one, two)


async def test_anonymous_clients_have_no_user_limit(shared_redis: RedisServer) -> None:
    settings: dict[str, object] = {PER_USER: 1, "auth.market_optional": True}
    async with nodes(shared_redis, **settings) as (one, two):
        clients = [await RawClient.connect(each.port, None) for each in (one, two, two)]
        with shared_redis.client() as client:
            [key] = client.keys(f"{one.prefix}:*:places")
            assert b"address@127.0.0.1" in key
        cut(*clients)
        await until_empty(shared_redis, one, two)


async def test_unshared_limits_count_each_node_alone(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, **{PER_IP: 2, "limits.shared": False}) as cluster:
        for node in cluster:
            results = [await try_connect(node) for _ in range(3)]
            assert [code for code, _ in results] == ["ok", "ok", "limit.connections"]
            assert node.server.statistics.snapshot()["limits_local"] == 0
            cut(*(client for _, client in results))
            await until_empty(shared_redis, node)


async def test_node_uses_local_limits_while_redis_is_paused() -> None:
    with redis_server() as redis:
        async with nodes(redis, **{PER_IP: 3}) as (one, two):
            accepted = [await try_connect(node) for node in (one, two, two)]
            redis.pause()
            local = [await try_connect(one) for _ in range(3)]
            assert [code for code, _ in local] == ["ok", "ok", "limit.connections"]
            counts = one.server.statistics.snapshot()
            # Two clients by address and user, one refused client by address only.
            assert (counts["limits_alone"], counts["limits_local"]) == (1, 4)
            redis.resume()
            await until(lambda: one.presence.session.pipeline.is_up)
            await pass_time(3, one, two)
            assert one.server.statistics.snapshot()["limits_alone"] == 0
            cut(accepted[1][1])
            await until(lambda: len(two.server.clients.registry) == 1)
            assert (await try_connect(two))[0] == "limit.connections", "four are still connected"
            cut(*(client for _, client in (*accepted, *local)))
            await until_empty(redis, one, two)


async def test_client_cut_during_admission_leaves_nothing() -> None:
    with redis_server() as redis:
        settings: dict[str, object] = {
            PER_USER: 1,
            PER_IP: 0,
            "limits.connects_per_second_per_ip": 0,
        }
        async with nodes(redis, **settings) as (one, two):
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


async def test_cancelled_handshake_leaves_nothing() -> None:
    with redis_server() as redis:
        settings: dict[str, object] = {PER_IP: 1, PER_USER: 0}
        async with nodes(redis, **settings) as (one, two):
            redis.pause()
            opening = asyncio.ensure_future(RawClient.open(one.port))
            await until(lambda: one.server.clients.limits.open_count == 1)
            opening.cancel()
            await asyncio.wait([opening])
            redis.resume()
            await one.until_empty()
            cut(await connect_when_free(two))
            await until_empty(redis, one, two)
            assert one.server.statistics.snapshot()["limits_local"] == 0


async def test_connect_during_drain_is_refused() -> None:
    with redis_server() as redis:
        async with nodes(redis) as (one, two):
            redis.pause()
            opening = asyncio.ensure_future(RawClient.open(one.port))
            await until(lambda: one.server.clients.limits.open_count == 1)
            one.server.clients.admission.drain_error = FloorcastError(
                ErrorCode.SERVER_DRAINING, "going down"
            )
            with pytest.raises(ConnectionError, match="503"):
                await opening
            assert not any(one.residue().values())
            redis.resume()
            await until_empty(redis, one, two)


async def test_recovered_client_reuses_its_half_open_limit_slot(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis, **{PER_USER: 1}) as (one, two):
        ann = RecoveringClient(one, "ann", "/market")
        await ann.connect()
        half_open, ann.client = ann.wire, None
        await ann.connect()
        assert ann.recovered
        await half_open.until_closed()
        assert (await try_connect(two))[0] == "limit.connections"
        half_open, ann.client, ann.node = ann.wire, None, two
        await ann.connect()
        assert ann.recovered, "recovery on another node reuses it too"
        await half_open.until_closed()
        assert (await try_connect(one))[0] == "limit.connections"
        ann.wire.cut()
