"""Two nodes run the same sources and are killed: each message is published once, and none missed.

`FLOORCAST_SOURCE_KILLS=20` kills as often.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import nats
import psycopg

from client_sdk.contract import Scope
from tests.feeds.sources.rig import trade
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.redis.servers import RedisServer
from tests.kit.server.workers import Workers, workers
from tests.kit.sources.programs import KafkaBroker, nats_server, postgres_server

KILLS = int(os.environ.get("FLOORCAST_SOURCE_KILLS", "2"))
ALIVE_SECONDS = 0.5
PAUSE_SECONDS = 0.002
SOURCES = ("redis-stream", "nats", "postgres", "kafka")
PAGE = 500

# Gives a source one more message, in an envelope.
Give = Callable[[dict[str, object]], Awaitable[object]]

TABLE = """
CREATE TABLE floorcast_outbox (
    id bigserial PRIMARY KEY, topic text NOT NULL, data jsonb NOT NULL,
    org text, user_id text, type text, source_ts bigint
)
"""
CONFIG = """
[feed]
name = "redis-stream,nats,postgres,kafka"
[feed.redis-stream]
url = "{redis}"
streams = {{ killed-source = "" }}
[feed.nats]
url = "{nats}"
subjects = {{ "killed.>" = "" }}
stream = "killed"
[feed.postgres]
url = "{postgres}"
[feed.kafka]
servers = "{kafka}"
topics = {{ killed = "" }}
[history]
messages = 1000000
"""


def topic_of(source: str) -> str:
    return f"TRADES:{source.upper()}"


async def givers(
    stack: AsyncExitStack, server: RedisServer, folder: Path
) -> tuple[dict[str, Give], Path]:
    """All sources, and the settings of nodes that read them."""
    nats_url, postgres_url = (
        stack.enter_context(each()) for each in (nats_server, postgres_server)
    )
    redis = stack.enter_context(server.client())
    stream = await nats.connect(nats_url)
    stack.push_async_callback(stream.close)
    jetstream = stream.jetstream()
    await jetstream.add_stream(name="killed", subjects=["killed.>"])
    database = await psycopg.AsyncConnection.connect(postgres_url, autocommit=True)
    stack.push_async_callback(database.close)
    await database.execute(TABLE)
    broker = KafkaBroker()
    stack.callback(broker.stop)

    async def to_redis(envelope: dict[str, object]) -> None:
        redis.xadd("killed-source", {"message": json.dumps(envelope)})

    async def to_postgres(envelope: dict[str, object]) -> None:
        row = (envelope["topic"], json.dumps(envelope["data"]))
        insert = "INSERT INTO floorcast_outbox (topic, data) VALUES (%s, %s)"
        async with database.transaction():
            await database.execute(insert, row)
            await database.execute("NOTIFY floorcast_outbox")

    async def to_kafka(envelope: dict[str, object]) -> None:
        broker.produce("killed", json.dumps(envelope).encode())

    settings = folder / "floorcast.toml"
    addresses = {"nats": nats_url, "postgres": postgres_url, "kafka": broker.address}
    settings.write_text(CONFIG.format(redis=server.url, **addresses))
    give: dict[str, Give] = {
        "redis-stream": to_redis,
        "nats": lambda envelope: jetstream.publish("killed.new", json.dumps(envelope).encode()),
        "postgres": to_postgres,
        "kafka": to_kafka,
    }
    return give, settings


class Giving:
    """Gives all sources the numbers from 1 on, until it is stopped."""

    def __init__(self, give: dict[str, Give]) -> None:
        self._give = give
        self._must_stop = False
        self.count = 0
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._must_stop = True
        await self._task

    async def _run(self) -> None:
        while not self._must_stop:
            self.count += 1
            for source, give in self._give.items():
                await give({"topic": topic_of(source), "data": trade(self.count)})
            await asyncio.sleep(PAUSE_SECONDS)


async def numbers(node: Workers, topic: str) -> list[int]:
    """The ids of all trades of a topic, in the order of their positions."""
    found: list[int] = []
    seq = 0
    token = node.token(scopes=[Scope.MARKET_READ])
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
        while True:
            url = f"{node.url}/api/v1/topics/{topic}/history?after_seq={seq}&limit={PAGE}"
            async with http.get(url) as reply:
                page: dict[str, Any] = await reply.json()
            if not page.get("messages"):
                return found
            found += [int(each["data"]["trades"][0]["id"]) for each in page["messages"]]
            seq = page["messages"][-1]["seq"]


def kill(node: Workers) -> None:
    """Kill a node with all its processes, at one moment."""
    for pid in (*node.pids(), node.process.pid):
        os.kill(pid, signal.SIGKILL)


async def test_each_message_is_published_once_by_nodes_that_are_killed(
    shared_redis: RedisServer, tmp_path: Path
) -> None:
    environ = {
        "FLOORCAST_BROKER__URL": shared_redis.url,
        "FLOORCAST_BROKER__PREFIX": tmp_path.name,
        "FLOORCAST_LOG__LEVEL": "error",
    }
    async with AsyncExitStack() as stack:
        give, settings = await givers(stack, shared_redis, tmp_path)
        processes = stack.enter_context(ExitStack())

        async def start() -> Workers:
            running = workers(1, "--config", str(settings), environ=environ)
            return await asyncio.to_thread(processes.enter_context, running)

        nodes = [await start(), await start()]
        giving = Giving(give)
        for number in range(KILLS):
            await asyncio.sleep(ALIVE_SECONDS)
            kill(nodes[number % 2])
            nodes[number % 2] = await start()
        await asyncio.sleep(ALIVE_SECONDS)
        await giving.stop()
        stopped_at = time.monotonic()
        for source in SOURCES:
            found: list[int] = []
            while len(found) < giving.count and time.monotonic() < stopped_at + MAX_WAIT_SECONDS:
                found = await numbers(nodes[0], topic_of(source))
            seconds = time.monotonic() - stopped_at
            print(f"{source}: {len(found)} published of {giving.count}, after {seconds:.1f} s")
            assert sorted(found) == list(range(1, giving.count + 1)), source
