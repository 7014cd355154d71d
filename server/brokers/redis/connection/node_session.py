"""The second connection of a node: for what is valid only while the node sends heartbeats."""

import itertools
import secrets
from collections.abc import Callable, Iterable, Mapping
from enum import Enum

from server.brokers.redis.config import RedisConfig
from server.brokers.redis.connection.client import create_client, evaluate
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.leases import DEAD_PREFIX, Leases
from server.brokers.redis.connection.node_scripts import BEAT, DECLARE_DEAD
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.connection.replies import as_bytes, as_list, as_mapping
from server.brokers.redis.log.scripts import Script
from server.ports import Clock
from server.tasks import TaskOwner

_BEATS_PER_LEASE = 4
# A dead node is remembered for this long, so that it learns its fate if it is alive after all: a
# suspended one has no clients any more after that.
_DEAD_NODE_TTL_MS = 3_600_000
# A retired node is remembered until its counts of connections have expired.
_RETIRED_NODE_TTL_MS = 900_000


# Separates the name of a process from how often it was declared dead.
_LIFE_SEPARATOR = "."


def process_name(node: str) -> str:
    """The name that a node's process keeps, from one of the names that it has had."""
    return node.partition(_LIFE_SEPARATOR)[0]


class NodeStatus(Enum):
    """This node's status in Redis at its heartbeat."""

    KNOWN = "known"
    FORGOTTEN = "forgotten"
    DECLARED_DEAD = "given up"


class NodeSession:
    """A pipeline and a lease: what this node writes here is valid while it sends heartbeats.

    Presence and the shared limits use it together; presence starts it and sends the heartbeats.
    """

    def __init__(
        self, clock: Clock, config: RedisConfig, tasks: TaskOwner, name: str | None = None
    ) -> None:
        self._clock = clock
        self._keys = Keys(config.prefix)
        # Its users add theirs before the connection is opened.
        self._scripts = [BEAT, DECLARE_DEAD]
        self._on_connection_change: Callable[[], None] = lambda: None
        client = create_client(
            config.address,
            self._scripts,
            timeout_seconds=config.timeout_seconds,
            name=f"{config.prefix}-sessions-{secrets.token_hex(6)}",
        )
        self.pipeline = Pipeline(
            client,
            tasks,
            name="floorcast-presence-pipeline",
            timeout_seconds=config.timeout_seconds,
            max_queued=config.max_queued,
            on_change=lambda: self._on_connection_change(),
        )
        lease_seconds = config.lease_seconds
        self._leases = Leases(lease_seconds=lease_seconds)
        self.lease_seconds = lease_seconds
        self.beat_seconds = lease_seconds / _BEATS_PER_LEASE
        self._beat_numbers = itertools.count(1)
        self._known = False
        self._name = name or secrets.token_hex(6)
        self._lives = itertools.count(2)
        self.node = self._name
        # What these nodes left in Redis is up for takeover.
        self.dead_nodes: frozenset[bytes] = frozenset()
        self._nodes: Mapping[bytes, bytes] = {}
        self._suspect = False
        self._listeners: list[Callable[[bool], None]] = []

    def use_scripts(self, scripts: Iterable[Script]) -> None:
        """Load these scripts too on each new connection; call it before `start`."""
        self._scripts.extend(scripts)

    async def start(self, on_connection_change: Callable[[], None]) -> None:
        """Connect; raises the connection error if Redis is unavailable."""
        self._on_connection_change = on_connection_change
        await self.pipeline.start()

    async def stop(self) -> None:
        """Close the connection."""
        await self.pipeline.stop()

    def add_listener(self, on_beat: Callable[[bool], None]) -> None:
        """Call back after each heartbeat; True if Redis may have lost earlier updates."""
        self._listeners.append(on_beat)

    def suspect(self) -> None:
        """Record that Redis may have lost updates."""
        self._suspect = True

    async def beat(self) -> NodeStatus:
        """Send a heartbeat and read those of the other nodes."""
        outcome, nodes = await self._send_beat(next(self._beat_numbers))
        status = NodeStatus.KNOWN
        if outcome == b"dead":
            # A new name: cleanup of the dead one must not touch what this node does next.
            self.node = f"{self._name}{_LIFE_SEPARATOR}{next(self._lives)}"
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
                await self._declare_dead(node, beat)

    async def retire(self) -> None:
        """Declare this node dead, so that others take over without waiting for its lease."""
        beat = next(self._beat_numbers)
        await self._send_beat(beat)
        await self._declare_dead(
            self.node.encode(),
            str(beat).encode(),
            ago_ms=_DEAD_NODE_TTL_MS - _RETIRED_NODE_TTL_MS,
        )

    async def _send_beat(self, number: int) -> tuple[bytes, dict[bytes, bytes]]:
        """Send a heartbeat; returns this node's status and all nodes' last heartbeats."""
        oldest_ms = self._now_ms() - _DEAD_NODE_TTL_MS
        command = evaluate(BEAT, [self._keys.nodes()], self.node.encode(), number, oldest_ms)
        outcome, nodes = as_list(await self.pipeline.run(command))
        return as_bytes(outcome), as_mapping(nodes)

    async def _declare_dead(self, node: bytes, last_beat: bytes, *, ago_ms: int = 0) -> None:
        """Declare a node dead since then, if this is still its last heartbeat."""
        since_ms = self._now_ms() - ago_ms
        command = evaluate(DECLARE_DEAD, [self._keys.nodes()], node, last_beat, since_ms)
        await self.pipeline.run(command)

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)
