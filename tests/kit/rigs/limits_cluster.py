"""Gates of a cluster: each node counts with the others who has come in."""

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
    """One node: what it has of the places of all."""

    node: PresenceNode
    limits: RedisSharedLimits

    async def connect(self, count: int, key: LimitKey = ADDRESS) -> list[ErrorCode | None]:
        """So many come at once; who is refused has a code."""
        return await asyncio.gather(*(self._connect(key) for _ in range(count)))

    async def _connect(self, key: LimitKey) -> ErrorCode | None:
        try:
            await self.limits.acquire(key)
        except LimitError as refusal:
            return refusal.code
        return None

    async def disconnect(self, count: int, key: LimitKey = ADDRESS) -> None:
        """So many go, and the others know of it."""
        for _ in range(count):
            self.limits.release(key)
        await self.wait_idle()

    async def wait_idle(self) -> None:
        """Wait until everything that this node has to say was said."""
        await self.node.wait_idle()
        await self.node.wait_until(lambda: not self.limits._in_flight)

    @property
    def local_count(self) -> int:
        """How many were let in by this node alone."""
        return self.node.counters.total("limits.local")


def limits_node(
    cluster: PresenceCluster,
    node: PresenceNode,
    limits: LimitKeys = SEVEN_CONNECTIONS,
    *,
    timeout_seconds: float = 5.0,
) -> LimitsNode:
    """The gate of a node that is up."""
    assert isinstance(node.presence, RedisPresence)
    places = RedisSharedLimits(
        cluster.clock,
        node.counters,
        limits,
        node.presence,
        prefix=cluster.prefix,
        timeout_seconds=timeout_seconds,
    )
    return LimitsNode(node, places)


async def pass_time(cluster: PresenceCluster, seconds: float, *gates: LimitsNode) -> None:
    """Let time pass in steps that every node sees."""
    while seconds > 0:
        cluster.clock.advance(min(seconds, 1.0))
        seconds -= 1.0
        for each in gates:
            await each.wait_idle()


def count_admitted(outcomes: Iterable[ErrorCode | None]) -> int:
    """How many found a place; all others are refused as too many."""
    found = list(outcomes)
    assert {*found} <= {None, ErrorCode.LIMIT_CONNECTIONS}
    return found.count(None)
