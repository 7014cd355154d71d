"""A cluster of presence managers that record session events in order."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from floorcast.testing.presence import ROOM, RULES
from floorcast.testing.presence import PresenceCluster as TestedCluster
from floorcast.testing.presence import PresenceNode as RecordingNode
from server.brokers import (
    Address,
    FileBroker,
    FileConfig,
    FilePresence,
    FileStore,
    MemoryPresence,
    NodeSession,
    RedisBroker,
    RedisConfig,
    RedisPresence,
)
from server.brokers.redis.limits.scripts import COUNT
from server.core.counters import Counters
from server.core.sessions.records import SessionRules
from server.tasks import TaskOwner

__all__ = ["ROOM", "PresenceCluster", "PresenceNode"]

_prefixes = itertools.count(1)


@dataclass(slots=True)
class PresenceNode(RecordingNode):
    """A node with its counters."""

    counters: Counters = field(default_factory=Counters)

    @property
    def redis_broker(self) -> RedisBroker:
        """The broker of a node over Redis."""
        assert isinstance(self.broker, RedisBroker)
        return self.broker

    async def die(self) -> None:
        """Stop like a killed process, without any further writes."""
        assert isinstance(self.presence, RedisPresence)
        task, self.presence._task = self.presence._task, None
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        await self.presence.stop()
        await self.redis_broker.stop()

    async def wait_idle(self) -> None:
        """Wait until this node has no pending update."""
        await self.presence.sweep()
        if isinstance(self.presence, RedisPresence):
            presence = self.presence
            await self.wait_until(lambda: presence.is_idle)


class PresenceCluster(TestedCluster):
    """Creates nodes that share presence in Redis; without a URL, a memory manager."""

    def __init__(self, url: str | None) -> None:
        super().__init__()
        self.prefix = f"node{next(_prefixes)}"
        self._url = url

    def create_node(self, rules: SessionRules, timeout_seconds: float = 5.0) -> PresenceNode:
        if self._url is None:
            return PresenceNode(MemoryPresence(self.clock, rules))
        counters = Counters()
        if self._url.startswith("file:"):
            store = FileStore(FileConfig(Path(self._url.removeprefix("file:"))), counters)
            file_broker = FileBroker(self.clock, store, TaskOwner(counters))
            in_file = FilePresence(self.clock, rules, store, resume_seconds=60)
            return PresenceNode(in_file, file_broker, counters=counters)
        address = Address.parse(self._url)
        config = RedisConfig(address, prefix=self.prefix, timeout_seconds=timeout_seconds)
        broker = RedisBroker(self.clock, counters, config)
        session = NodeSession(self.clock, config, broker.tasks)
        # Tests add shared limits to running nodes.
        session.use_scripts((COUNT,))
        presence = RedisPresence(self.clock, config, rules, broker, session)
        return PresenceNode(presence, broker, counters=counters)

    @contextlib.asynccontextmanager
    async def node(
        self, *, timeout_seconds: float = 5.0, **rules: Any
    ) -> AsyncIterator[PresenceNode]:
        """Run a node that watches the room."""
        node = self.create_node(replace(RULES, **rules), timeout_seconds)
        async with self.running(node):
            yield node
