"""Nodes that share occupancy, wills and the queue of hooks, and what each of them emits."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from client_sdk.contract import HookType
from server.brokers import (
    Address,
    FileConfig,
    FileStore,
    MemoryHookQueue,
    MemoryOccupancy,
    NodeSession,
    RedisConfig,
    RedisHookQueue,
    RedisOccupancy,
    file_occupancy,
)
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.log.scripts import Script, build_script
from server.core.counters import Counters
from server.core.occupancy.config import OccupancyConfig
from server.core.occupancy.events import HookEvent
from server.core.occupancy.wills import Will
from server.ports import HookQueue, Occupancy
from server.tasks import TaskOwner, cancel_and_wait
from tests.kit.clock import START, ManualClock
from tests.kit.patience import until

# Longer than the time between two beats.
GRACE_SECONDS = 0.45
# Time passes in steps, each shorter than that; every node beats after each.
_STEP_SECONDS = 0.2
_TIME_OF_REDIS, _TIME_OF_TESTS = (
    "redis.call('TIME')",
    "{redis.call('GET', 'clock:' .. KEYS[1]), 0}",
)
_prefixes = itertools.count(1)


@dataclass(slots=True)
class OccupancyNode:
    """One node, the changes and wills that it emitted, and its counters."""

    occupancy: Occupancy
    queue: HookQueue
    counters: Counters
    session: NodeSession | None = None
    store: FileStore | None = None
    changes: list[str] = field(default_factory=list)
    wills: list[Will] = field(default_factory=list)

    async def kill(self) -> None:
        """End it as `kill -9` does: it says nothing more."""
        assert isinstance(self.occupancy, RedisOccupancy)
        task, self.occupancy._task = self.occupancy._task, None
        if task is not None:
            await cancel_and_wait(task)

    async def beat(self) -> None:
        """Let a node that lives find what is due."""
        occupancy = self.occupancy
        if isinstance(occupancy, RedisOccupancy) and occupancy._task is not None:
            async with occupancy._lock:
                occupancy._beat_at_once()
            await until(lambda: occupancy._next_beat_at)

    async def flush(self) -> None:
        """Wait until Redis knows what this node uses."""
        if isinstance(self.occupancy, RedisOccupancy):
            while self.occupancy.updates:
                await asyncio.sleep(0.001)

    async def events(self) -> list[dict[str, Any]]:
        """All events in the queue, which stay in it."""
        await self.flush()
        return [dict(each.body) for each in await self.queue.take(1000)]

    def append(self, user: str, *, once: str = "") -> None:
        """Queue an event about a user."""
        ts_ms = int(START * 1000)
        self.queue.append(
            HookEvent(user, HookType.CONNECTION_OPENED, ts_ms, "n", {"user_id": user}, once)
        )


def build_timed_script(text: str, values: dict[str, object]) -> Script:
    """A script that goes by the time of the cluster, and not by that of Redis."""
    return build_script(text.replace(_TIME_OF_REDIS, _TIME_OF_TESTS), values)


class OccupancyCluster:
    """Creates nodes that share the Redis at a URL, or a file; without one, memory."""

    def __init__(self, url: str | None) -> None:
        self.clock = ManualClock()
        self.config = OccupancyConfig(grace_seconds=GRACE_SECONDS, queued=frozenset(HookType))
        self._url = url
        self.prefix = f"occupancy{next(_prefixes)}"
        self._nodes: list[OccupancyNode] = []
        # The ids of events have the real time.
        self._redis_time = time.time()

    @property
    def is_redis(self) -> bool:
        """Whether the nodes share a Redis, and with it its time."""
        return self._url is not None and not self._url.startswith("file:")

    @contextlib.asynccontextmanager
    async def node(self, **config: Any) -> AsyncIterator[OccupancyNode]:
        """Run a node until the block ends."""
        node = self._create(replace(self.config, **config))
        if node.session is not None:
            await node.session.start(lambda: None)
            await self._set_redis_time(node.session)
        if node.store is not None:
            await node.store.open()
        await node.occupancy.start(
            lambda change: node.changes.append(f"{change.type} {change.subject.name}"),
            node.wills.append,
        )
        self._nodes.append(node)
        try:
            yield node
        finally:
            self._nodes.remove(node)
            await node.occupancy.stop()
            if node.session is not None:
                await node.session.stop()
            if node.store is not None:
                await node.store.close(is_complete=False)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        for node in self._nodes:
            await node.flush()
        self.clock.advance(seconds)
        if self.is_redis:
            await self._pass_redis_time(seconds)
        for node in self._nodes:
            node.occupancy.tick()

    def now_ms(self) -> int:
        """The time by which this cluster goes: that of Redis, or of its clock."""
        return int(1000 * (self._redis_time if self.is_redis else self.clock.time()))

    async def _pass_redis_time(self, seconds: float) -> None:
        end = self._redis_time + seconds
        while self._redis_time < end:
            self._redis_time = min(self._redis_time + _STEP_SECONDS, end)
            for node in self._nodes:
                assert node.session is not None
                await self._set_redis_time(node.session)
                await node.beat()

    async def _set_redis_time(self, session: NodeSession) -> None:
        key = b"clock:" + Keys(self.prefix).occupancy()
        await session.pipeline.run((b"SET", key, b"%.3f" % self._redis_time))

    def _create(self, config: OccupancyConfig) -> OccupancyNode:
        counters = Counters()
        if self._url is None:
            queue = MemoryHookQueue(self.clock, config, counters)
            return OccupancyNode(MemoryOccupancy(self.clock, config, queue), queue, counters)
        if self._url.startswith("file:"):
            store = FileStore(FileConfig(Path(self._url.removeprefix("file:"))), counters)
            occupancy, hooks = file_occupancy(self.clock, store, config, counters)
            return OccupancyNode(occupancy, hooks, counters, store=store)
        return self._create_over_redis(self._url, config, counters)

    def _create_over_redis(
        self, url: str, config: OccupancyConfig, counters: Counters
    ) -> OccupancyNode:
        tasks = TaskOwner(counters)
        redis = RedisConfig(Address.parse(url), prefix=self.prefix)
        session = NodeSession(self.clock, redis, tasks)
        with patch("server.brokers.redis.occupancy.scripts.build_script", build_timed_script):
            occupancy = RedisOccupancy(
                self.clock,
                counters,
                config,
                session,
                tasks,
                node=f"node{len(self._nodes)}",
                prefix=self.prefix,
                lease_seconds=2.0,
            )
        hooks = RedisHookQueue(occupancy, config.queued, counters)
        return OccupancyNode(occupancy, hooks, counters, session)
