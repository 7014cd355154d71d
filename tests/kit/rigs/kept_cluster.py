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
from tests.kit.patience import until

KIND = "revoked"
_prefixes = itertools.count(1)


@dataclass(slots=True)
class KeptNode:
    """The kept values of one node, with the callbacks about `KIND`."""

    broker: Broker
    kept: KeptValues
    changes: list[tuple[str, bytes | None]] = field(default_factory=list)

    @property
    def is_up(self) -> bool:
        """Whether it has read what it may have missed before its connections were up."""
        if not isinstance(self.broker, RedisBroker):
            return True
        assert isinstance(self.kept, RedisKeptValues)
        followed = self.kept._followed.values()
        return self.broker._subscriber.is_up and all(each.number is not None for each in followed)

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
            await until(lambda: node.is_up)
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
