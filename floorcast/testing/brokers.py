"""Drives brokers for `BrokerSuite`, and records what they deliver."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from floorcast.testing.clock import ManualClock
from server.core.log.entries import Entry, Reset
from server.ports import Broker

# A passing test may come close to this only on a busy machine.
MAX_WAIT_SECONDS = 40.0


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
    """Creates the brokers of a test; override `create_broker`.

    All brokers of one cluster share their storage, and no other cluster does.
    """

    def __init__(self) -> None:
        self.clock = ManualClock()

    def create_broker(self, bounds: Bounds) -> Broker:
        """Create a broker of one node, with `self.clock`, not started yet."""
        raise NotImplementedError

    def create_node(self, bounds: Bounds | None = None) -> BrokerNode:
        """Create a node, not started yet."""
        return BrokerNode(self.create_broker(bounds or Bounds()))

    async def pass_time(self, seconds: float) -> None:
        """Advance the clock; override it if the storage has a clock of its own."""
        self.clock.advance(seconds)

    @contextlib.asynccontextmanager
    async def running(self, bounds: Bounds | None = None) -> AsyncIterator[BrokerNode]:
        """Run a node until the block ends."""
        node = self.create_node(bounds)
        await node.start()
        try:
            await node.wait_until(lambda: bool(node.states))
            yield node
        finally:
            await node.stop()
