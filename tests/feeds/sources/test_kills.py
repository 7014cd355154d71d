"""Two nodes run the same sources, and all are killed: each message is published once, none missed.

`FLOORCAST_SOURCE_KILLS=20` kills as many nodes, and the sources as often.
"""

import asyncio
import json
import os
import signal
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import nats
import psycopg
from nats.js import JetStreamContext

from client_sdk.contract import Scope
from tests.feeds.sources.rig import trade
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.server.workers import Workers, workers
from tests.kit.sources.programs import KafkaBroker, nats_program, postgres_program

KILLS = int(os.environ.get("FLOORCAST_SOURCE_KILLS", "2"))
ALIVE_SECONDS = 0.5
PAUSE_SECONDS = 0.002
SOURCES = ("redis-stream", "nats", "postgres", "kafka")
PAGE = 500

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


class Sources:
    """All sources, filled by one after the other, and the programs of those that can be killed."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._nats = stack.enter_context(nats_program())
        self._postgres = stack.enter_context(postgres_program())
        self._redis = stack.enter_context(redis_server(is_persistent=True))
        self._kafka = KafkaBroker()
        stack.callback(self._kafka.stop)
        self._jetstream: JetStreamContext
        # A broker of Kafka with its data cannot be had here.
        self._programs = (self._nats, self._postgres, self._redis)

    @staticmethod
    async def start(stack: AsyncExitStack) -> "Sources":
        """Start all, each with what its feed reads."""
        sources = Sources(stack)
        client = await nats.connect(
            sources._nats.url, reconnect_time_wait=0, max_reconnect_attempts=-1
        )
        stack.push_async_callback(client.close)
        sources._jetstream = client.jetstream()
        await sources._jetstream.add_stream(name="killed", subjects=["killed.>"])
        async with await sources._connect() as database:
            await database.execute(TABLE)
        return sources

    def settings(self, folder: Path) -> Path:
        """The settings of a node that reads them."""
        file = folder / "floorcast.toml"
        addresses = {"nats": self._nats.url, "postgres": self._postgres.url}
        config = CONFIG.format(redis=self._redis.url, kafka=self._kafka.address, **addresses)
        file.write_text(config)
        return file

    async def add(self, number: int) -> None:
        """Add one more message to each source."""
        envelopes = {
            name: json.dumps({"topic": topic_of(name), "data": trade(number)}) for name in SOURCES
        }
        with self._redis.client() as redis:
            redis.xadd("killed-source", {"message": envelopes["redis-stream"]})
        await self._jetstream.publish("killed.new", envelopes["nats"].encode())
        async with await self._connect() as database:
            row = (topic_of("postgres"), json.dumps(trade(number)))
            insert = "INSERT INTO floorcast_outbox (topic, data) VALUES (%s, %s)"
            await database.execute(insert, row)
            await database.execute("NOTIFY floorcast_outbox")
        self._kafka.produce("killed", envelopes["kafka"].encode())

    async def crash(self) -> None:
        """Kill all programs, while nothing is added, and start them again."""
        for program in self._programs:
            program.kill()
        for program in self._programs:
            await asyncio.to_thread(program.start)

    async def _connect(self) -> "psycopg.AsyncConnection[psycopg.rows.TupleRow]":
        while True:
            try:
                return await psycopg.AsyncConnection.connect(self._postgres.url)
            except psycopg.OperationalError:
                # It recovers.
                await asyncio.sleep(0.02)


class Adding:
    """Adds the numbers from 1 on to all sources, until it is stopped; a crash waits for a pause."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._turn = asyncio.Lock()
        self._must_stop = False
        self.count = 0
        self._task = asyncio.create_task(self._run())

    async def crash(self) -> None:
        """Kill the sources between two messages, and start them again."""
        async with self._turn:
            await self._sources.crash()

    async def stop(self) -> None:
        self._must_stop = True
        await self._task

    async def _run(self) -> None:
        while not self._must_stop:
            async with self._turn:
                self.count += 1
                await self._sources.add(self.count)
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


async def test_each_message_is_published_once_though_nodes_and_sources_are_killed(
    shared_redis: RedisServer, tmp_path: Path
) -> None:
    environ = {
        "FLOORCAST_BROKER__URL": shared_redis.url,
        "FLOORCAST_BROKER__PREFIX": tmp_path.name,
        "FLOORCAST_LOG__LEVEL": "error",
    }
    async with AsyncExitStack() as stack:
        sources = await Sources.start(stack)
        settings = sources.settings(tmp_path)
        processes = stack.enter_context(ExitStack())

        async def start() -> Workers:
            running = workers(1, "--config", str(settings), environ=environ)
            return await asyncio.to_thread(processes.enter_context, running)

        nodes = [await start(), await start()]
        adding = Adding(sources)
        for number in range(KILLS):
            await asyncio.sleep(ALIVE_SECONDS)
            await adding.crash()
            await asyncio.sleep(ALIVE_SECONDS)
            kill(nodes[number % 2])
            nodes[number % 2] = await start()
        await asyncio.sleep(ALIVE_SECONDS)
        await adding.stop()
        stopped_at = time.monotonic()
        for source in SOURCES:
            found: list[int] = []
            while len(found) < adding.count and time.monotonic() < stopped_at + MAX_WAIT_SECONDS:
                found = await numbers(nodes[0], topic_of(source))
            seconds = time.monotonic() - stopped_at
            print(f"{source}: {len(found)} published of {adding.count}, after {seconds:.1f} s")
            assert sorted(found) == list(range(1, adding.count + 1)), source
