"""A cluster of presence managers that record session events in order."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

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
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.records import SessionKey, SessionRules, session_channel
from server.ports import PresenceManager, ignore
from server.tasks import TaskOwner
from tests.kit.clock import ManualClock
from tests.kit.patience import MAX_WAIT_SECONDS

ROOM: SessionKey = ("acme", "room")
RULES = SessionRules(grace_seconds=10.0, retention_seconds=60.0)
_prefixes = itertools.count(1)


@dataclass(slots=True)
class PresenceNode:
    """A presence manager and its events; `ann1` is one of ann's connections."""

    presence: PresenceManager
    broker: RedisBroker | None = None
    file_broker: FileBroker | None = None
    counters: Counters = field(default_factory=Counters)
    events: list[SessionEvent] = field(default_factory=list)

    async def start(self) -> None:
        broker = self.broker or self.file_broker
        if broker is not None:
            await broker.start(ignore)
        await self.presence.start(self.events.append)

    async def stop(self) -> None:
        await self.presence.stop()
        broker = self.broker or self.file_broker
        if broker is not None:
            await broker.stop()

    async def die(self) -> None:
        """Stop like a killed process, without any further writes."""
        assert isinstance(self.presence, RedisPresence)
        assert self.broker is not None
        task, self.presence._task = self.presence._task, None
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        await self.presence.stop()
        await self.broker.stop()

    async def watch(self, key: SessionKey = ROOM) -> None:
        """Receive the events of a session."""
        if self.broker is not None:
            await self.broker.watch(session_channel(*key))

    async def join(self, *connections: str, key: SessionKey = ROOM) -> None:
        """Join connections one after the other."""
        for connection_id in connections:
            await self.presence.join(connection_id, connection_id[:-1], key)

    def disconnect(self, connection_id: str, key: SessionKey = ROOM) -> None:
        """Lose a connection, so that its grace period starts."""
        self.presence.remove(connection_id, key, lost=True)

    async def participants(self, key: SessionKey = ROOM) -> dict[str, int]:
        """Users with their number of connections, longest present first."""
        participants = await self.presence.participants(key)
        return (
            {each.user_id: each.connections for each in participants.members}
            if participants
            else {}
        )

    async def wait_idle(self) -> None:
        """Wait until this node has no pending update."""
        await self.presence.sweep()
        if isinstance(self.presence, RedisPresence):
            presence = self.presence
            await self.wait_until(lambda: presence.is_idle)

    async def wait_until(self, done: Callable[[], bool]) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while not done():
                await asyncio.sleep(0.001)

    def event_summaries(self) -> list[tuple[str, str, int]]:
        """Kind, user and participant count of each event, without signals and expiries."""
        return [
            (each.kind.value, each.user_id, each.participant_count)
            for each in self.events
            if each.kind not in (SessionEventKind.SIGNAL, SessionEventKind.EXPIRED)
        ]


class PresenceCluster:
    """Creates nodes that share presence in Redis; without a URL, a memory manager."""

    def __init__(self, url: str | None) -> None:
        self.clock = ManualClock()
        self.prefix = f"node{next(_prefixes)}"
        self.nodes: list[PresenceNode] = []
        self._url = url

    def _create_node(self, rules: SessionRules, timeout_seconds: float) -> PresenceNode:
        if self._url is None:
            return PresenceNode(MemoryPresence(self.clock, rules))
        counters = Counters()
        if self._url.startswith("file:"):
            store = FileStore(FileConfig(Path(self._url.removeprefix("file:"))), counters)
            file_broker = FileBroker(self.clock, store, TaskOwner(counters))
            in_file = FilePresence(self.clock, rules, store, resume_seconds=60)
            return PresenceNode(in_file, file_broker=file_broker, counters=counters)
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
        self, *, timeout_seconds: float = 5.0, **rules: float
    ) -> AsyncIterator[PresenceNode]:
        """Run a node that watches the room."""
        node = self._create_node(replace(RULES, **rules), timeout_seconds)  # type: ignore[arg-type]
        await node.start()
        self.nodes.append(node)
        try:
            await node.watch()
            yield node
        finally:
            self.nodes.remove(node)
            await node.stop()

    async def settle(self, key: SessionKey = ROOM) -> None:
        """Wait until all nodes have received all events."""
        for node in self.nodes:
            await node.wait_idle()
        for node in self.nodes:
            before = [
                sum(each.kind is SessionEventKind.SIGNAL for each in h.events) for h in self.nodes
            ]
            await node.presence.signal(key, "nobody", "nobody", b"{}")
            for other, count in zip(self.nodes, before, strict=True):
                await other.wait_until(
                    lambda other=other, count=count: (  # type: ignore[misc]
                        sum(each.kind is SessionEventKind.SIGNAL for each in other.events) > count
                    )
                )

    async def pass_time(self, seconds: float, key: SessionKey = ROOM) -> None:
        """Advance the clock in steps, and let every node act."""
        while seconds > 0:
            self.clock.advance(min(seconds, 1.0))
            seconds -= 1.0
            for node in self.nodes:
                await node.wait_idle()
        await self.settle(key)
