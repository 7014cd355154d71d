"""One node's signs of life, and which of the other nodes have died."""

import itertools
import secrets
from collections.abc import Callable, Mapping
from enum import Enum

from server.brokers.redis.connection.leases import DEAD_PREFIX, Leases
from server.brokers.redis.presence.calls import SessionCalls
from server.ports import Clock

# So many signs of life are given in the time of a lease.
_BEATS_PER_LEASE = 4
# A node that was given up is remembered for so long, in case that it lives.
_DEAD_NODE_TTL_MS = 86_400_000


class NodeStatus(Enum):
    """What Redis thought of this node when it gave its sign of life."""

    KNOWN = "known"
    FORGOTTEN = "forgotten"
    DECLARED_DEAD = "given up"


class Liveness:
    """Whatever a node has in Redis is its own for as long as it gives signs of life."""

    def __init__(self, calls: SessionCalls, clock: Clock, *, lease_seconds: float) -> None:
        self._calls = calls
        self._clock = clock
        self._leases = Leases(lease_seconds=lease_seconds)
        self.lease_seconds = lease_seconds
        self.beat_seconds = lease_seconds / _BEATS_PER_LEASE
        self._beat_numbers = itertools.count(1)
        self._known = False
        self.node = secrets.token_hex(6)
        # What these have is nobody's any more.
        self.dead_nodes: frozenset[bytes] = frozenset()
        self._nodes: Mapping[bytes, bytes] = {}
        self._suspect = False
        self._listeners: list[Callable[[bool], None]] = []

    def add_listener(self, on_beat: Callable[[bool], None]) -> None:
        """Be told of every beat, and whether Redis may have lost what was said before."""
        self._listeners.append(on_beat)

    def suspect(self) -> None:
        """Redis may have lost something."""
        self._suspect = True

    async def beat(self) -> NodeStatus:
        """Give a sign of life, and see those of the others."""
        outcome, nodes = await self._calls.beat(
            self.node, next(self._beat_numbers), _DEAD_NODE_TTL_MS
        )
        standing = NodeStatus.KNOWN
        if outcome == b"dead":
            # Whatever is done for the dead one from now on does not concern the living.
            self.node = secrets.token_hex(6)
            self._known, standing = False, NodeStatus.DECLARED_DEAD
        else:
            if outcome == b"new" and self._known:
                standing = NodeStatus.FORGOTTEN
            self._known, self._nodes = True, nodes
            self.dead_nodes = frozenset(
                node for node, sign in nodes.items() if sign.startswith(DEAD_PREFIX)
            )
        lost = self._suspect or standing is not NodeStatus.KNOWN
        self._suspect = False
        for on_beat in self._listeners:
            on_beat(lost)
        return standing

    async def declare_dead_nodes(self) -> None:
        """Give up those that gave no sign for the time of a lease."""
        nodes, self._nodes = self._nodes, {}
        if nodes:
            for node, sign in self._leases.expired(nodes, self._clock.monotonic()):
                await self._calls.declare_dead(node, sign)

    async def retire(self) -> None:
        """Let others take over at once."""
        sign = next(self._beat_numbers)
        await self._calls.beat(self.node, sign, _DEAD_NODE_TTL_MS)
        await self._calls.declare_dead(self.node.encode(), str(sign).encode())
