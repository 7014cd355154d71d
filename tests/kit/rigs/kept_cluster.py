"""Nodes that share kept values, and what each was called back about."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from server.brokers import (
    Address,
    FileBroker,
    FileConfig,
    FileKeptValues,
    FileStore,
    MemoryBroker,
    MemoryKeptValues,
    RedisBroker,
    RedisConfig,
    RedisKeptValues,
)
from server.core.counters import Counters
from server.core.kept import KeptLimits
from server.ports import Broker, KeptValues, ignore
from server.tasks import TaskOwner
from tests.kit.clock import ManualClock

KIND = "revoked"
_prefixes = itertools.count(1)


@dataclass(slots=True)
class KeptNode:
    """The kept values of one node, with the callbacks about `KIND`."""

    broker: Broker
    kept: KeptValues
    changes: list[tuple[str, bytes | None]] = field(default_factory=list)

    @property
    def known(self) -> dict[str, bytes]:
        """The values as the callbacks tell them."""
        return {key: data for key, data in dict(self.changes).items() if data is not None}


class KeptCluster:
    """Creates nodes that share the Redis at a URL, or a file; without one, memory."""

    def __init__(self, url: str | None) -> None:
        self.clock = ManualClock()
        self.is_in_memory = url is None
        self._url = url
        self._prefix = f"kept{next(_prefixes)}"

    @contextlib.asynccontextmanager
    async def node(self, limits: KeptLimits | None = None) -> AsyncIterator[KeptNode]:
        """Run a node until the block ends."""
        node = self._create(limits)
        node.kept.follow(KIND, lambda key, data: node.changes.append((key, data)))
        await node.broker.start(ignore)
        try:
            await node.kept.start()
            yield node
        finally:
            await node.kept.stop()
            await node.broker.stop()

    def _create(self, limits: KeptLimits | None) -> KeptNode:
        clock, counters = self.clock, Counters()
        if self._url is None:
            return KeptNode(MemoryBroker(clock, epoch="e"), MemoryKeptValues(clock, limits))
        if self._url.startswith("file:"):
            store = FileStore(FileConfig(Path(self._url.removeprefix("file:"))), counters)
            file_broker = FileBroker(clock, store, TaskOwner(counters))
            return KeptNode(file_broker, FileKeptValues(clock, store, limits))
        config = RedisConfig(Address.parse(self._url), prefix=self._prefix)
        broker = RedisBroker(clock, counters, config)
        return KeptNode(broker, RedisKeptValues(clock, config, broker, limits))
