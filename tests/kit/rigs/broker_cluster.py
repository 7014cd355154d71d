"""A cluster of brokers that record their deliveries in order."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from floorcast.testing.brokers import Bounds
from floorcast.testing.brokers import BrokerCluster as TestedCluster
from floorcast.testing.brokers import BrokerNode as RecordingNode
from server.brokers import (
    Address,
    FileBroker,
    FileConfig,
    FileStore,
    MemoryBroker,
    MemoryConfig,
    RedisBroker,
    RedisConfig,
)
from server.core.counters import Counters
from server.core.log.history import HistoryBounds
from server.core.sessions.histories import HistoryRules
from server.tasks import TaskOwner

_prefixes = itertools.count(1)


@dataclass(slots=True)
class BrokerNode(RecordingNode):
    """A broker, its recorded deliveries and its counters."""

    counters: Counters = field(default_factory=Counters)


class BrokerCluster(TestedCluster):
    """Creates nodes that share the Redis at a URL, or a file; without one, memory brokers."""

    def __init__(self, kind: str, url: str | None) -> None:
        super().__init__()
        self.kind = kind
        self.prefix = f"test{next(_prefixes)}"
        self._url = url
        # The bounds of the sessions' histories; those of `Bounds` are the topics'.
        self.session_history = HistoryBounds()

    def create_node(
        self,
        bounds: Bounds | None = None,
        *,
        timeout_seconds: float = 5.0,
        acknowledging_replicas: int = 0,
    ) -> BrokerNode:
        """Create a node, not started yet."""
        bounds = bounds or Bounds()
        histories = HistoryRules(
            HistoryBounds(bounds.messages, bounds.bytes, bounds.seconds), self.session_history
        )
        config = MemoryConfig(
            idempotency_seconds=bounds.idempotency_seconds,
            histories=histories,
        )
        if self._url is None:
            return BrokerNode(MemoryBroker(self.clock, epoch="e1", config=config))
        counters = Counters()
        if self._url.startswith("file:"):
            store = FileStore(FileConfig(Path(self._url.removeprefix("file:"))), counters)
            file_broker = FileBroker(self.clock, store, TaskOwner(counters), config=config)
            return BrokerNode(file_broker, counters=counters)
        broker = RedisBroker(
            self.clock,
            counters,
            RedisConfig(
                Address.parse(self._url),
                prefix=self.prefix,
                timeout_seconds=timeout_seconds,
                acknowledging_replicas=acknowledging_replicas,
                idempotency_seconds=bounds.idempotency_seconds,
                histories=histories,
            ),
        )
        return BrokerNode(broker, counters=counters)

    async def pass_time(self, seconds: float) -> None:
        await super().pass_time(seconds)
        if self.kind not in ("memory", "file"):
            # Redis has a clock of its own.
            await asyncio.sleep(seconds)

    @contextlib.asynccontextmanager
    async def running(
        self,
        bounds: Bounds | None = None,
        *,
        timeout_seconds: float = 5.0,
        acknowledging_replicas: int = 0,
    ) -> AsyncIterator[BrokerNode]:
        """Run a node until the block ends."""
        node = self.create_node(
            bounds,
            timeout_seconds=timeout_seconds,
            acknowledging_replicas=acknowledging_replicas,
        )
        await node.start()
        try:
            await node.wait_until(lambda: bool(node.states))
            yield node
        finally:
            await node.stop()
