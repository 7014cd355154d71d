"""Wills of a node that is killed are published once, on time, and not for those who came back.

`FLOORCAST_WILL_KILLS=20` kills as many nodes.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.workers import Workers, workers

KILLS = int(os.environ.get("FLOORCAST_WILL_KILLS", "2"))
CLIENTS = 50
AFTER_SECONDS = 2.0
# By so much a will may come before its time: a node's last sign of life is older than its death.
EARLIEST_SECONDS = 0.3
TOPIC = "TRADES:WILLS"


class Published:
    """The wills as a subscriber sees them, each with the time of its arrival."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    async def read(self, client: RawClient) -> None:
        while True:
            name, body = await client.event()
            if name == "trades":
                [trade] = body["data"]["trades"]
                self.counts[trade["id"]] += 1
                self.times.setdefault(trade["id"], time.monotonic())


@asynccontextmanager
async def subscriber(node: Workers) -> AsyncIterator[Published]:
    """Read the topic of the wills on a node."""
    client = await RawClient.connect(node.port, node.token("reader"))
    reply = await client.call("subscribe", {"topics": [TOPIC]})
    assert reply["ok"]
    published = Published()
    reading = asyncio.create_task(published.read(client))
    try:
        yield published
    finally:
        reading.cancel()
        client.cut()


async def connect_with_will(node: Workers, user: str) -> RawClient:
    client = await RawClient.connect(node.port, node.token(user))
    trade = {"id": user, "price": "1", "qty": "1", "side": "sell", "ts": 1}
    message = {"topic": TOPIC, "data": {"trades": [trade]}}
    after_ms = int(AFTER_SECONDS * 1000)
    reply = await client.call("will", {"after_ms": after_ms, "messages": [message]})
    assert reply == {"ok": True}
    return client


def kill(node: Workers) -> None:
    """Kill a node with all its processes, at one moment."""
    for pid in (*node.pids(), node.process.pid):
        os.kill(pid, signal.SIGKILL)


async def start(stack: ExitStack, environ: dict[str, str]) -> Workers:
    """Start a node without blocking the clients of others."""
    return await asyncio.to_thread(stack.enter_context, workers(1, environ=environ))


async def kill_one(number: int, survivor: Workers, environ: dict[str, str]) -> list[float]:
    """Kill a node with its clients, of which half come back; returns how late each will was."""
    users = [f"user{number}-{each}" for each in range(CLIENTS)]
    back, gone = users[::2], users[1::2]
    with ExitStack() as stack:
        node = await start(stack, environ)
        clients = [await connect_with_will(node, user) for user in users]
        async with subscriber(survivor) as published:
            kill(node)
            killed_at = time.monotonic()
            await asyncio.sleep(AFTER_SECONDS / 2)
            returned: list[RawClient] = []
            late: set[str] = set()
            for user in back:
                returned.append(await RawClient.connect(survivor.port, survivor.token(user)))
                if time.monotonic() - killed_at > AFTER_SECONDS - EARLIEST_SECONDS:
                    # A busy machine: its will may be published before it is back.
                    late.add(user)
            await until(lambda: published.counts.keys() >= set(gone))
            # Time for what must not come.
            await asyncio.sleep(AFTER_SECONDS)
            assert published.counts.keys() - late == set(gone)
            assert set(published.counts.values()) == {1}
        for client in (*clients, *returned):
            client.cut()
    return [published.times[each] - killed_at - AFTER_SECONDS for each in gone]


async def test_wills_of_killed_nodes_are_published_once(shared_redis: RedisServer) -> None:
    environ = {
        "FLOORCAST_BROKER__URL": shared_redis.url,
        "FLOORCAST_BROKER__PREFIX": "wills",
        "FLOORCAST_LOG__LEVEL": "warning",
    }
    with ExitStack() as stack:
        survivors = [await start(stack, environ) for _ in range(2)]
        late: list[float] = []
        for number in range(KILLS):
            late += await kill_one(number, survivors[number % 2], environ)
    print(f"{len(late)} wills, {min(late):.2f} to {max(late):.2f} s late")
    assert min(late) > -EARLIEST_SECONDS
    # On an idle machine within a second.
    assert max(late) < 1 + MAX_WAIT_SECONDS / 10
