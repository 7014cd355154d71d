"""Run several real servers that share one Redis and one clock."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from server.brokers import RedisBroker, RedisPresence
from tests.kit.clock import ManualClock
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.in_process import RunningServer, running

_prefixes = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Node(RunningServer):
    """One of several servers; `stop` ends it before the others."""

    stop: Callable[[], Coroutine[Any, Any, None]]

    @property
    def broker(self) -> RedisBroker:
        broker = self.server.backend.broker
        assert isinstance(broker, RedisBroker)
        return broker

    @property
    def presence(self) -> RedisPresence:
        presence = self.server.backend.presence
        assert isinstance(presence, RedisPresence)
        return presence

    @property
    def prefix(self) -> str:
        """The prefix of all its keys in Redis."""
        return self.server.settings.broker.prefix

    async def until_up(self) -> None:
        """Wait until the broker is connected and subscribed."""
        await until(lambda: self.broker._subscriber.is_up)

    async def until_caught_up(self) -> None:
        """Wait until the node has every published entry of its channels."""
        for channel in self.server.delivery.hub.channels():
            await self.broker.since(channel.name, channel.state.position)

    def recovery_count(self, name: str) -> int:
        return self.server.counters.total(f"recovery.{name}")


@contextlib.asynccontextmanager
async def nodes(
    redis: RedisServer | None,
    count: int = 2,
    create_parts: Callable[[], Mapping[str, Any]] = dict,
    /,
    **settings: object,
) -> AsyncIterator[list[Node]]:
    """Run `count` nodes with one Redis, one key prefix and one clock.

    `create_parts` makes the arguments of `create_app` for each node.
    """
    clock = ManualClock()
    url = {} if redis is None else {"broker.url": redis.url}
    shared = {**url, "broker.prefix": f"nodes{next(_prefixes)}", **settings}
    async with contextlib.AsyncExitStack() as stack:
        started: list[Node] = []
        for _ in range(count):
            own = await stack.enter_async_context(contextlib.AsyncExitStack())
            server = await own.enter_async_context(running(shared, clock=clock, **create_parts()))
            node = Node(server.server, server.host, server.port, clock, own.aclose)
            await node.until_up()
            started.append(node)
        yield started


async def pass_time(seconds: float, *nodes: Node) -> None:
    """Advance the shared clock in steps of at most 1 s, and run each node's timers."""
    while seconds > 0:
        nodes[0].clock.advance(min(1.0, seconds))
        seconds -= 1.0
        for node in nodes:
            node.server.tick()
            await node.server.sessions.service.sweep()
            await until(lambda node=node: node.presence.is_idle)
