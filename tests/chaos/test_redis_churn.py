"""Redis freezes while topics come and go: no node becomes deaf to a topic that is new to it."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from server.core.errors import FloorcastError
from server.core.log.idempotency import Claim
from tests.chaos.broker_rig import TIMEOUT_SECONDS
from tests.chaos.test_redis_faults import PAUSE_SECONDS
from tests.kit.clock import START
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.redis.servers import redis_server
from tests.kit.rigs.broker_cluster import BrokerCluster, BrokerNode

ROUNDS = int(os.environ.get("FLOORCAST_FAULT_ROUNDS", "1"))
CHURNING_COUNT = 20
NOW_MS = int(START * 1000)
_names = itertools.count(1)


@contextlib.asynccontextmanager
async def churn(node: BrokerNode) -> AsyncIterator[None]:
    """Watch and unwatch ever new channels inside the context."""

    async def watch_and_unwatch() -> None:
        while True:
            channel = f"C{next(_names)}"
            with contextlib.suppress(FloorcastError):
                await node.broker.watch(channel)
            await asyncio.sleep(0.001)
            await node.broker.unwatch(channel)

    churning = [asyncio.create_task(watch_and_unwatch()) for _ in range(CHURNING_COUNT)]
    try:
        yield
    finally:
        for each in churning:
            each.cancel()
        await asyncio.wait(churning)
    assert all(each.cancelled() for each in churning)


async def until_accepted(call: Callable[[], Awaitable[object]]) -> None:
    """Repeat a call until the broker accepts it."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while True:
            with contextlib.suppress(FloorcastError):
                await call()
                return
            await asyncio.sleep(0.05)


def publish(node: BrokerNode, channel: str) -> Callable[[], Awaitable[object]]:
    """A call that publishes one message, once."""
    claim = Claim("id", b"digest")
    return partial(node.broker.publish, channel, b"{}", NOW_MS, in_history=True, claim=claim)


async def test_node_receives_new_topics_after_a_pause_during_churn() -> None:
    with redis_server() as redis:
        cluster = BrokerCluster("redis", redis.url)
        async with (
            cluster.running(timeout_seconds=TIMEOUT_SECONDS) as node,
            cluster.running(timeout_seconds=TIMEOUT_SECONDS) as publisher,
        ):
            for number in range(ROUNDS):
                async with churn(node):
                    redis.pause()
                    await asyncio.sleep(PAUSE_SECONDS)
                    redis.resume()
                    await until_accepted(partial(node.broker.watch, f"NEW{number}"))
                await until_accepted(publish(publisher, f"NEW{number}"))
                await node.wait_until(lambda name=f"NEW{number}": node.seqs(name) == [1])  # type: ignore[misc]
            assert node.counters.total("tasks.failed") == 0
