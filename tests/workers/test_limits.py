"""A limit of one address over several workers as processes, and after one of them was killed."""

import asyncio
import os
import signal

from tests.kit.clients.wire import RawClient
from tests.kit.redis.servers import RedisServer
from tests.kit.server.workers import Workers, workers
from tests.workers.test_processes import cut, disconnected

LIMIT, MANY = 12, 30
# The lease of a node and two of its beats.
LEASE_SECONDS = 12.0


async def admitted_clients(floor: Workers) -> list[RawClient]:
    """Many try to connect at once; those who were let in."""

    async def come() -> RawClient | None:
        client = await RawClient.open(floor.port)
        await client.text()
        client.send('40/market,{"recovery":false,"token":"' + floor.token() + '"}')
        if (answer := await client.text()).startswith("40"):
            await client.event()
            return client
        assert '"limit.connections"' in answer
        client.cut()
        return None

    coming = await asyncio.gather(*(come() for _ in range(MANY)))
    return [each for each in coming if each is not None]


async def test_a_limit_is_that_of_all_workers_and_a_killed_one_gives_its_share_back(
    shared_redis: RedisServer,
) -> None:
    environ = {
        "FLOORCAST_BROKER__URL": shared_redis.url,
        "FLOORCAST_BROKER__PREFIX": "workers-limits",
        "FLOORCAST_LIMITS__CONNECTIONS_PER_IP": str(LIMIT),
    }
    with workers(2, environ=environ) as floor:
        clients = await admitted_clients(floor)
        assert len(clients) == LIMIT
        os.kill(min(floor.pids()), signal.SIGKILL)
        async with asyncio.timeout(5):
            while not (gone := await disconnected(clients)):
                pass
        assert 0 < len(gone) < LIMIT
        back: list[RawClient] = []
        async with asyncio.timeout(LEASE_SECONDS + 10):
            while len(back) < len(gone):
                await asyncio.sleep(0.5)
                back += await admitted_clients(floor)
        assert len(back) == len(gone)
        assert await admitted_clients(floor) == []
        cut([*clients, *back])
