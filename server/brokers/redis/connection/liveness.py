"""Sends this node's heartbeats and declares nodes dead whose lease expired."""

import itertools
import secrets
from collections.abc import Callable, Mapping
from enum import Enum

from server.brokers.redis.connection.leases import DEAD_PREFIX, Leases
from server.brokers.redis.limits.scripts import COUNT_TTL_MS
from server.brokers.redis.presence.calls import SessionCalls
from server.ports import Clock

_BEATS_PER_LEASE = 4
# A dead node is remembered for this long, so that it learns its fate if it is alive after all: a
# suspended one has no clients any more after that.
_DEAD_NODE_TTL_MS = 3_600_000
# A retired node is remembered until nobody counts its connections any more.
_RETIRED_NODE_TTL_MS = COUNT_TTL_MS


class NodeStatus(Enum):
    """This node's status in Redis at its heartbeat."""

    KNOWN = "known"
    FORGOTTEN = "forgotten"
    DECLARED_DEAD = "given up"


class Liveness:
    """The lease of one node: its data in Redis is valid while it sends heartbeats."""

    def __init__(self, calls: SessionCalls, clock: Clock, *, lease_seconds: float) -> None:
        self._calls = calls
        self._clock = clock
        self._leases = Leases(lease_seconds=lease_seconds)
        self.lease_seconds = lease_seconds
        self.beat_seconds = lease_seconds / _BEATS_PER_LEASE
        self._beat_numbers = itertools.count(1)
        self._known = False
        self.node = secrets.token_hex(6)
        # What these nodes left in Redis is up for takeover.
        self.dead_nodes: frozenset[bytes] = frozenset()
        self._nodes: Mapping[bytes, bytes] = {}
        self._suspect = False
        self._listeners: list[Callable[[bool], None]] = []

    def add_listener(self, on_beat: Callable[[bool], None]) -> None:
        """Call back after each heartbeat; True if Redis may have lost earlier updates."""
        self._listeners.append(on_beat)

    def suspect(self) -> None:
        """Record that Redis may have lost updates."""
        self._suspect = True

    async def beat(self) -> NodeStatus:
        """Send a heartbeat and read those of the other nodes."""
        outcome, nodes = await self._calls.beat(
            self.node, next(self._beat_numbers), _DEAD_NODE_TTL_MS
        )
        status = NodeStatus.KNOWN
        if outcome == b"dead":
            # A new name: cleanup of the dead one must not touch what this node does next.
            self.node = secrets.token_hex(6)
            self._known, status = False, NodeStatus.DECLARED_DEAD
        else:
            if outcome == b"new" and self._known:
                status = NodeStatus.FORGOTTEN
            self._known, self._nodes = True, nodes
            self.dead_nodes = frozenset(
                node for node, beat in nodes.items() if beat.startswith(DEAD_PREFIX)
            )
        lost = self._suspect or status is not NodeStatus.KNOWN
        self._suspect = False
        for on_beat in self._listeners:
            on_beat(lost)
        return status

    async def declare_dead_nodes(self) -> None:
        """Declare the nodes dead whose lease has expired."""
        nodes, self._nodes = self._nodes, {}
        if nodes:
            for node, beat in self._leases.expired(nodes, self._clock.monotonic()):
                await self._calls.declare_dead(node, beat)

    async def retire(self) -> None:
        """Declare this node dead, so that others take over without waiting for its lease."""
        beat = next(self._beat_numbers)
        await self._calls.beat(self.node, beat, _DEAD_NODE_TTL_MS)
        forgotten_early_ms = _DEAD_NODE_TTL_MS - _RETIRED_NODE_TTL_MS
        await self._calls.declare_dead(
            self.node.encode(), str(beat).encode(), ago_ms=forgotten_early_ms
        )
