"""Publish to one broker node and read from another, through faults of their Redis."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from floorcast.testing import Bounds
from server.core.errors import FloorcastError
from server.core.log.entries import Receipt
from server.core.log.idempotency import Claim
from tests.kit.clock import START
from tests.kit.patience import until
from tests.kit.rigs.broker_cluster import BrokerCluster, BrokerNode

TIMEOUT_SECONDS = 1.0
CHANNELS = ("A", "B", "C")
# More than any test publishes: only a Redis fault loses messages.
UNBOUNDED = Bounds(messages=1_000_000, bytes=2**30)
NOW_MS = int(START * 1000)


@dataclass(slots=True)
class BrokerPublisher:
    """Publishes each message until the broker acknowledges it."""

    node: BrokerNode
    # Receipts by channel and message number.
    acknowledged: dict[str, dict[int, Receipt]] = field(
        default_factory=lambda: {channel: {} for channel in CHANNELS}
    )
    refused: int = 0
    codes: set[str] = field(default_factory=set)
    slowest_seconds: float = 0.0
    last_at: float = 0.0

    async def publish_all(self) -> None:
        """Publish to every channel until cancelled."""
        await asyncio.gather(*map(self._publish_to, CHANNELS))

    async def _publish_to(self, channel: str) -> None:
        number = 0
        while True:
            number += 1
            await self._publish(channel, number)
            await asyncio.sleep(0.002)

    async def _publish(self, channel: str, number: int) -> None:
        claim = Claim(f"{channel}/{number}", b"same")
        while True:
            began = time.monotonic()
            try:
                receipt = await self.node.broker.publish(
                    channel, b'{"n":%d}' % number, NOW_MS, claim=claim, in_history=True
                )
            except FloorcastError as error:
                self.refused += 1
                self.codes.add(error.code)
                await asyncio.sleep(0.01)
            else:
                self.acknowledged[channel][number] = receipt
                self.last_at = time.monotonic()
                return
            finally:
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)

    async def until_acknowledged(self) -> None:
        """Wait until a publish is acknowledged from now on."""
        began = time.monotonic()
        await until(lambda: self.last_at > began)


@contextlib.asynccontextmanager
async def writer_and_reader(
    cluster: BrokerCluster, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> AsyncIterator[tuple[BrokerNode, BrokerNode]]:
    """Run two nodes of a cluster that keep every message."""
    async with (
        cluster.running(UNBOUNDED, timeout_seconds=timeout_seconds) as writer,
        cluster.running(UNBOUNDED, timeout_seconds=timeout_seconds) as reader,
    ):
        yield writer, reader


@contextlib.asynccontextmanager
async def publishing(node: BrokerNode) -> AsyncIterator[BrokerPublisher]:
    """Publish to every channel until the block ends."""
    publisher = BrokerPublisher(node)
    task = asyncio.create_task(publisher.publish_all(), name="publisher")
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
