"""Tests the limit of an address over several workers, also after one is killed."""

import asyncio
import json

from server.core.recovery.tickets import node_of
from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.redis.servers import RedisServer
from tests.kit.server.workers import Workers, workers
from tests.workers.test_processes import cut, kill_worker

LIMIT, MANY = 12, 30
# The lease of a node and two heartbeats.
LEASE_SECONDS = 12.0


async def admitted_clients(cluster: Workers) -> list[RawClient]:
    """Connect many clients at once; return the admitted ones."""

    async def connect() -> RawClient | None:
        client = await RawClient.open(cluster.port)
        await client.text()
        client.send('40/market,{"recovery":false,"token":"' + cluster.token() + '"}')
        if (reply := await client.text()).startswith("40"):
            await client.event()
            return client
        assert '"limit.connections"' in reply
        client.cut()
        return None

    results = await asyncio.gather(*(connect() for _ in range(MANY)))
    return [each for each in results if each is not None]


async def clients_of_both_workers(floor: Workers) -> list[RawClient]:
    """Connect one client after the other until each worker has one of them."""
    clients: dict[str, RawClient] = {}
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while len(clients) < 2:
            client = await RawClient.open(floor.port)
            await client.text()
            client.send('40/market,{"token":"' + floor.token() + '"}')
            node = node_of(json.loads((await client.text()).removeprefix("40/market,"))["pid"])
            if node in clients:
                await client.close()
            else:
                clients[node] = client
    return list(clients.values())


async def test_shared_limit_recovers_after_a_worker_is_killed(
    shared_redis: RedisServer,
) -> None:
    environ = {
        "FLOORCAST_BROKER__URL": shared_redis.url,
        "FLOORCAST_BROKER__PREFIX": "workers-limits",
        "FLOORCAST_LIMITS__CONNECTIONS_PER_IP": str(LIMIT),
    }
    with workers(2, environ=environ) as cluster:
        # One on each worker first: a worker that is slow now could get none of the others.
        clients = await clients_of_both_workers(cluster)
        for each in clients:
            # The welcome: a connection has ended only once all is read.
            await each.event()
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while len(clients) < LIMIT:
                clients += await admitted_clients(cluster)
        assert len(clients) == LIMIT
        gone = await kill_worker(cluster, clients)
        assert 0 < len(gone) < LIMIT
        back: list[RawClient] = []
        async with asyncio.timeout(LEASE_SECONDS + MAX_WAIT_SECONDS):
            while len(back) < len(gone):
                await asyncio.sleep(0.5)
                back += await admitted_clients(cluster)
        assert len(back) == len(gone)
        assert await admitted_clients(cluster) == []
        cut([*clients, *back])
