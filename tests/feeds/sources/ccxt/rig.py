"""Runs the feed of a local venue, supervised, and a client that sees its topics."""

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from server.core.counters import Counters
from server.delivery import DeliveryConfig
from server.feeds import open_feeds
from server.ports import FeedOptions
from server.services import FeedEvent, FeedSupervisor
from server.services.market.demand import Demand, LocalDemand
from server.tasks import TaskOwner
from tests.feeds.venues.venue import LocalVenue
from tests.kit.network.links import RecordingLink
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.rigs.market import STALE, MarketRig

# It is large, so not every environment of tox has it.
NEEDS_CCXT = pytest.mark.skipif(importlib.util.find_spec("ccxt") is None, reason="needs ccxt")
_POLL_SECONDS = 0.001


class Node:
    """One node's feed."""

    def __init__(self, market: MarketRig, venue: str, options: dict[str, object]) -> None:
        self._market = market
        self.events: list[FeedEvent] = []
        local = LocalDemand(market.subscriptions, market.patterns)

        async def ask() -> frozenset[str]:
            return local.names()[1]

        async def turn(_: float) -> None:
            await asyncio.sleep(_POLL_SECONDS)

        feed_options = FeedOptions(market.clock)
        [feed] = open_feeds([f"ccxt:{venue}"], feed_options, {"ccxt": options}).values()
        self.supervisor = FeedSupervisor(
            "ccxt",
            feed,
            market.publishing,
            market.instruments,
            market.freshness,
            market.clock,
            TaskOwner(Counters()),
            demand=Demand(ask, market.instruments.table, market.clock, sleep=turn),
            on_event=self.events.append,
        )
        self.supervisor.start()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, and run what a server runs meanwhile."""
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while not condition():
                await asyncio.sleep(_POLL_SECONDS)
                self.supervisor.tick()
                self._market.settle()


class VenueRig:
    """A market, and one or more nodes with the feed of a venue."""

    def __init__(self, market: MarketRig, venue: str, options: dict[str, object]) -> None:
        self.market = market
        self._venue = venue
        self._options = options
        self.nodes: list[Node] = []

    def start(self) -> Node:
        """Start the feed as on another node."""
        node = Node(self.market, self._venue, self._options)
        self.nodes.append(node)
        return node

    async def stop(self) -> None:
        for node in self.nodes:
            await node.supervisor.stop()

    async def until(self, condition: Callable[[], object]) -> None:
        await self.nodes[-1].until(condition)

    async def has(self, topic: str, count: int = 1) -> None:
        """Wait until a topic has so many messages."""
        await self.until(lambda: self.market.broker.head_of(topic).seq >= count)

    async def has_states(self, client: RecordingLink, topic: str, *expected: str) -> None:
        """Wait until a client was sent exactly these states of a topic."""
        await self.until(lambda: states(client, topic) == list(expected))

    async def data(self, topic: str) -> dict[str, Any]:
        """The latest full state of a topic."""
        entry = await self.market.broker.latest(topic)
        assert entry is not None
        state: dict[str, Any] = orjson.loads(entry.data)
        return state

    async def trades(self, symbol: str) -> list[str]:
        """The ids of all trades in their order."""
        entries = await self.market.broker.before(f"TRADES:{symbol}", None, 100_000)
        return [orjson.loads(each.data)["trades"][0]["id"] for each in entries]


@contextlib.asynccontextmanager
async def venue_rig(venue: LocalVenue, name: str, **options: object) -> AsyncIterator[VenueRig]:
    """A rig with one node whose feed uses a local venue."""
    market = await MarketRig.create(DeliveryConfig(stalled_seconds=0), STALE)
    rig = VenueRig(market, name, {"rate_limit": False, **venue.options, **options})
    rig.start()
    try:
        yield rig
    finally:
        await rig.stop()


def states(client: RecordingLink, topic: str) -> list[str]:
    """The states of a topic that a client was sent."""
    stream, _, symbol = topic.partition(":")
    return [
        each["state"]
        for each in client.messages("status")
        if (each["stream"], each["symbol"]) == (stream, symbol)
    ]
