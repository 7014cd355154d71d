"""Nodes of a cluster as their assembly sees them: what they hear of sessions, in order."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from server.brokers import (
    Address,
    MemoryPresence,
    RedisBroker,
    RedisConfig,
    RedisPresence,
)
from server.core.counters import Counters
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.records import SessionKey, SessionRules, session_channel
from server.ports import PresenceManager, ignore
from tests.kit.clock import ManualClock
from tests.kit.patience import MAX_WAIT_SECONDS

ROOM: SessionKey = ("acme", "room")
RULES = SessionRules(grace_seconds=10.0, retention_seconds=60.0)
_prefixes = itertools.count(1)


@dataclass(slots=True)
class PresenceNode:
    """One node: its assembly, and what it heard; `ann1` is one of ann's connections."""

    presence: PresenceManager
    broker: RedisBroker | None = None
    counters: Counters = field(default_factory=Counters)
    events: list[SessionEvent] = field(default_factory=list)

    async def start(self) -> None:
        if self.broker is not None:
            await self.broker.start(ignore)
        await self.presence.start(self.events.append)

    async def stop(self) -> None:
        await self.presence.stop()
        if self.broker is not None:
            await self.broker.stop()

    async def die(self) -> None:
        """End as a killed process does: nothing is said any more."""
        assert isinstance(self.presence, RedisPresence)
        assert self.broker is not None
        task, self.presence._task = self.presence._task, None
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        await self.presence.stop()
        await self.broker.stop()

    async def watch(self, key: SessionKey = ROOM) -> None:
        """Hear what happens in a session."""
        if self.broker is not None:
            await self.broker.watch(session_channel(*key))

    async def join(self, *connections: str, key: SessionKey = ROOM) -> None:
        """They come in, one after the other."""
        for connection_id in connections:
            await self.presence.join(connection_id, connection_id[:-1], key)

    def disconnect(self, connection_id: str, key: SessionKey = ROOM) -> None:
        """It is cut off."""
        self.presence.remove(connection_id, key, lost=True)

    async def participants(self, key: SessionKey = ROOM) -> dict[str, int]:
        """The users who are there, the longest first, with their connections."""
        gathering = await self.presence.participants(key)
        return {each.user_id: each.connections for each in gathering.members} if gathering else {}

    async def wait_idle(self) -> None:
        """Wait until everything that this node has to say was said."""
        await self.presence.sweep()
        if isinstance(self.presence, RedisPresence):
            assembly = self.presence
            await self.wait_until(lambda: assembly.is_idle)

    async def wait_until(self, done: Callable[[], bool]) -> None:
        """Wait for something."""
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while not done():
                await asyncio.sleep(0.001)

    def event_summaries(self) -> list[tuple[str, str, int]]:
        """What was heard while it lasted: what, of whom, and how many are there."""
        return [
            (each.kind.value, each.user_id, each.participant_count)
            for each in self.events
            if each.kind not in (SessionEventKind.SIGNAL, SessionEventKind.EXPIRED)
        ]


class PresenceCluster:
    """Makes nodes that share what they know of sessions, in Redis if there is one."""

    def __init__(self, url: str | None) -> None:
        self.clock = ManualClock()
        self.prefix = f"hall{next(_prefixes)}"
        self.nodes: list[PresenceNode] = []
        self._url = url

    def _create_node(self, rules: SessionRules, timeout_seconds: float) -> PresenceNode:
        if self._url is None:
            return PresenceNode(MemoryPresence(self.clock, rules))
        counters = Counters()
        address = Address.parse(self._url)
        config = RedisConfig(address, prefix=self.prefix, timeout_seconds=timeout_seconds)
        broker = RedisBroker(self.clock, counters, config)
        return PresenceNode(RedisPresence(self.clock, config, rules, broker), broker, counters)

    @contextlib.asynccontextmanager
    async def node(
        self, *, timeout_seconds: float = 5.0, **rules: float
    ) -> AsyncIterator[PresenceNode]:
        """A node that is up and hears of the room."""
        hall = self._create_node(replace(RULES, **rules), timeout_seconds)  # type: ignore[arg-type]
        await hall.start()
        self.nodes.append(hall)
        try:
            await hall.watch()
            yield hall
        finally:
            self.nodes.remove(hall)
            await hall.stop()

    async def settle(self, key: SessionKey = ROOM) -> None:
        """Everything that was done has been heard everywhere."""
        for hall in self.nodes:
            await hall.wait_idle()
        for hall in self.nodes:
            before = [
                sum(each.kind is SessionEventKind.SIGNAL for each in h.events) for h in self.nodes
            ]
            await hall.presence.signal(key, "nobody", "nobody", b"{}")
            for other, count in zip(self.nodes, before, strict=True):
                await other.wait_until(
                    lambda other=other, count=count: (  # type: ignore[misc]
                        sum(each.kind is SessionEventKind.SIGNAL for each in other.events) > count
                    )
                )

    async def pass_time(self, seconds: float, key: SessionKey = ROOM) -> None:
        """Let time pass in steps, and let every node see it."""
        while seconds > 0:
            self.clock.advance(min(seconds, 1.0))
            seconds -= 1.0
            for hall in self.nodes:
                await hall.wait_idle()
        await self.settle(key)
