"""A cluster of nodes with shared connection limits."""

from dataclasses import dataclass

from floorcast.testing.limits import ADDRESS, ANN, count_admitted
from floorcast.testing.limits import LimitsNode as TestedNode
from server.brokers import RedisPresence, RedisSharedLimits
from server.core.limits.keys import ConnectionLimit, LimitKeys
from tests.kit.rigs.presence_cluster import PresenceCluster, PresenceNode

__all__ = ["ADDRESS", "ANN", "SEVEN_CONNECTIONS", "LimitsNode", "count_admitted", "limits_node"]

SEVEN_CONNECTIONS = LimitKeys(ConnectionLimit(7), ConnectionLimit(7))


@dataclass(slots=True)
class LimitsNode(TestedNode):
    """A node with shared limits."""

    limits: RedisSharedLimits
    node: PresenceNode

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
    return LimitsNode(shared_limits, node)


async def pass_time(cluster: PresenceCluster, seconds: float, *nodes: LimitsNode) -> None:
    """Advance the clock in steps, and let every node act."""
    while seconds > 0:
        cluster.clock.advance(min(seconds, 1.0))
        seconds -= 1.0
        for each in nodes:
            await each.wait_idle()
