"""Drives presence managers for `PresenceSuite`, and records the session events that they emit."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from floorcast.testing.brokers import MAX_WAIT_SECONDS
from floorcast.testing.clock import ManualClock
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.records import SessionKey, SessionRules, session_channel
from server.ports import Broker, PresenceManager, ignore

ROOM: SessionKey = ("acme", "room")
RULES = SessionRules(grace_seconds=10.0, retention_seconds=60.0)


@dataclass(slots=True)
class PresenceNode:
    """A presence manager and its events; `ann1` is one of ann's connections."""

    presence: PresenceManager
    # Started before the manager, if that publishes its events through it.
    broker: Broker | None = None
    events: list[SessionEvent] = field(default_factory=list)

    async def start(self) -> None:
        """Start the broker and the manager."""
        if self.broker is not None:
            await self.broker.start(ignore)
        await self.presence.start(self.events.append)

    async def stop(self) -> None:
        """Stop the manager and the broker."""
        await self.presence.stop()
        if self.broker is not None:
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
        """Let the manager act; override it to wait for what yours does in the background."""
        await self.presence.sweep()

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
    """Creates the nodes of a test; override `create_node`.

    All nodes of one cluster share their storage, and no other cluster does.
    """

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.nodes: list[PresenceNode] = []

    def create_node(self, rules: SessionRules) -> PresenceNode:
        """Create a node, not started yet, with `self.clock` and these rules."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def node(self, **rules: Any) -> AsyncIterator[PresenceNode]:
        """Run a node that watches the room, with other rules than the default ones."""
        node = self.create_node(replace(RULES, **rules))
        async with self.running(node):
            yield node

    @contextlib.asynccontextmanager
    async def running(self, node: PresenceNode) -> AsyncIterator[None]:
        """Run a node that watches the room until the block ends."""
        await node.start()
        self.nodes.append(node)
        try:
            await node.watch()
            yield
        finally:
            self.nodes.remove(node)
            await node.stop()

    async def settle(self, key: SessionKey = ROOM) -> None:
        """Wait until all nodes have received all events."""
        for node in self.nodes:
            await node.wait_idle()
        for node in self.nodes:
            before = [_signal_count(each) for each in self.nodes]
            await node.presence.signal(key, "nobody", "nobody", b"{}")
            for other, count in zip(self.nodes, before, strict=True):
                await other.wait_until(
                    lambda other=other, count=count: _signal_count(other) > count  # type: ignore[misc]
                )

    async def pass_time(self, seconds: float, key: SessionKey = ROOM) -> None:
        """Advance the clock in steps, and let every node act."""
        while seconds > 0:
            self.clock.advance(min(seconds, 1.0))
            seconds -= 1.0
            for node in self.nodes:
                await node.wait_idle()
        await self.settle(key)


def _signal_count(node: PresenceNode) -> int:
    return sum(each.kind is SessionEventKind.SIGNAL for each in node.events)
