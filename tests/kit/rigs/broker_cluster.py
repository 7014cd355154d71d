"""A cluster of brokers that record their deliveries in order."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from server.brokers import Address, MemoryBroker, MemoryConfig, RedisBroker, RedisConfig
from server.core.counters import Counters
from server.core.log.entries import Entry, Reset
from server.ports import Broker
from tests.kit.clock import ManualClock
from tests.kit.patience import MAX_WAIT_SECONDS

_prefixes = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The history bounds of any broker."""

    messages: int = 1000
    bytes: int = 1024 * 1024
    seconds: float = 300.0
    idempotency_seconds: float = 120.0


@dataclass(slots=True)
class BrokerNode:
    """A broker and its recorded deliveries."""

    broker: Broker
    counters: Counters = field(default_factory=Counters)
    entries: list[Entry] = field(default_factory=list)
    resets: list[Reset] = field(default_factory=list)
    states: list[bool] = field(default_factory=list)
    # Entries and resets in order of delivery.
    deliveries: list[Entry | Reset] = field(default_factory=list)

    async def start(self) -> None:
        await self.broker.start(
            self._on_entry, on_reset=self._on_reset, on_state=self.states.append
        )

    async def stop(self) -> None:
        await self.broker.stop()

    def _on_entry(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.deliveries.append(entry)

    def _on_reset(self, reset: Reset) -> None:
        self.resets.append(reset)
        self.deliveries.append(reset)

    def seqs(self, channel: str = "A") -> list[int]:
        """The delivered seqs of one channel."""
        return [each.position.seq for each in self.entries if each.channel == channel]

    async def wait_until(self, done: Callable[[], bool]) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while not done():
                await asyncio.sleep(0.001)

    async def wait_for_entries(self, count: int) -> list[Entry]:
        """Wait for exactly this many entries."""
        await self.wait_until(lambda: len(self.entries) >= count)
        assert len(self.entries) == count
        return self.entries


class BrokerCluster:
    """Creates nodes that share the Redis at a URL; without one, memory brokers."""

    def __init__(self, kind: str, url: str | None) -> None:
        self.kind = kind
        self.clock = ManualClock()
        self.prefix = f"test{next(_prefixes)}"
        self._url = url

    def create_node(
        self,
        bounds: Bounds | None = None,
        *,
        timeout_seconds: float = 5.0,
        acknowledging_replicas: int = 0,
    ) -> BrokerNode:
        """Create a node, not started yet."""
        bounds = bounds or Bounds()
        if self._url is None:
            config = MemoryConfig(
                idempotency_seconds=bounds.idempotency_seconds,
                history_messages=bounds.messages,
                history_bytes=bounds.bytes,
                history_seconds=bounds.seconds,
            )
            return BrokerNode(MemoryBroker(self.clock, epoch="e1", config=config))
        counters = Counters()
        broker = RedisBroker(
            self.clock,
            counters,
            RedisConfig(
                Address.parse(self._url),
                prefix=self.prefix,
                timeout_seconds=timeout_seconds,
                acknowledging_replicas=acknowledging_replicas,
                idempotency_seconds=bounds.idempotency_seconds,
                history_messages=bounds.messages,
                history_bytes=bounds.bytes,
                history_seconds=bounds.seconds,
            ),
        )
        return BrokerNode(broker, counters)

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
