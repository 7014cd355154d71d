"""A cluster of nodes with shared connection limits."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from client_sdk.contract import ErrorCode
from server.brokers import RedisPresence, RedisSharedLimits
from server.core.errors import LimitError
from server.core.limits.keys import ConnectionLimit, LimitKey, LimitKeys
from tests.kit.rigs.presence_cluster import PresenceCluster, PresenceNode

ADDRESS: LimitKey = "192.0.2.1"
ANN: LimitKey = ("acme", "ann")
SEVEN_CONNECTIONS = LimitKeys(ConnectionLimit(7), ConnectionLimit(7))


@dataclass(slots=True)
class LimitsNode:
    """A node with shared limits."""

    node: PresenceNode
    limits: RedisSharedLimits

    async def connect(self, count: int, key: LimitKey = ADDRESS) -> list[ErrorCode | None]:
        """Acquire this many connections concurrently; None for each success, or the error code."""
        return await asyncio.gather(*(self._connect(key) for _ in range(count)))

    async def _connect(self, key: LimitKey) -> ErrorCode | None:
        try:
            await self.limits.acquire(key)
        except LimitError as refusal:
            return refusal.code
        return None

    async def disconnect(self, count: int, key: LimitKey = ADDRESS) -> None:
        """Release this many connections and wait until they are reported."""
        for _ in range(count):
            self.limits.release(key)
        await self.wait_idle()

    async def wait_idle(self) -> None:
        """Wait until this node has nothing left to report."""
        await self.node.wait_idle()
        await self.node.wait_until(lambda: not self.limits._in_flight)

    @property
    def local_count(self) -> int:
        """The number of connections admitted without Redis."""
        return self.node.counters.total("limits.local")


def limits_node(
    cluster: PresenceCluster,
    node: PresenceNode,
    limits: LimitKeys = SEVEN_CONNECTIONS,
    *,
    timeout_seconds: float = 5.0,
) -> LimitsNode:
    """Add shared limits to a running presence node."""
    assert isinstance(node.presence, RedisPresence)
    shared_limits = RedisSharedLimits(
        cluster.clock,
        node.counters,
        limits,
        node.presence.session,
        prefix=cluster.prefix,
        timeout_seconds=timeout_seconds,
    )
    return LimitsNode(node, shared_limits)


async def pass_time(cluster: PresenceCluster, seconds: float, *nodes: LimitsNode) -> None:
    """Advance the clock in steps, and let every node act."""
    while seconds > 0:
        cluster.clock.advance(min(seconds, 1.0))
        seconds -= 1.0
        for each in nodes:
            await each.wait_idle()


def count_admitted(outcomes: Iterable[ErrorCode | None]) -> int:
    """Count the admitted; all others must be refused for too many connections."""
    found = list(outcomes)
    assert {*found} <= {None, ErrorCode.LIMIT_CONNECTIONS}
    return found.count(None)
