"""Tests that a venue's market reaches clients of all nodes, whatever happens to the venue."""

from typing import Any

import pytest

from server.feeds import open_feeds
from server.ports import Feed, FeedOptions
from tests.feeds.sources.ccxt.rig import NEEDS_CCXT
from tests.feeds.venues.kraken import KrakenVenue
from tests.kit.checksum import checksum
from tests.kit.clients.wire import RawClient
from tests.kit.clock import START, ManualClock
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.nodes import nodes

pytestmark = [pytest.mark.sockets, NEEDS_CCXT]

NOW_MS = int(START * 1000)
BOOK, TRADES = "ORDERBOOK:BTC/USD", "TRADES:BTC/USD"


def feed_of(venue: KrakenVenue, streams: str) -> Feed:
    options = {**venue.options, "rate_limit": False, "symbols": "BTC/USD", "streams": streams}
    [feed] = open_feeds(["ccxt:kraken"], FeedOptions(ManualClock()), {"ccxt": options}).values()
    return feed


class Viewer:
    """A client that keeps a book, and checks each checksum and each step of a topic."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self.seen: list[str] = []
        self.bids: dict[str, str] = {}
        self._asks: dict[str, str] = {}

    async def close(self) -> None:
        await self._client.close()

    async def subscribe(self, *topics: str) -> None:
        reply = await self._client.call("subscribe", {"topics": topics})
        snapshot = reply["topics"].get(BOOK, {}).get("snapshot")
        if snapshot is not None:
            self._take_book(snapshot)

    async def until(self, *expected: str) -> None:
        """Receive until these were seen, in this order."""
        while self.seen[-len(expected) :] != list(expected):
            event, body = await self._client.event()
            if event == "status":
                self.seen.append(body["state"])
            elif event == "trades":
                self.seen += [each["id"] for each in body["data"]["trades"]]
            elif event == "orderbook":
                self.seen.append(body["type"])
                self._take_book(body)

    def _take_book(self, message: dict[str, Any]) -> None:
        data = message["data"]
        for side, levels in ((self.bids, data["bids"]), (self._asks, data["asks"])):
            if message["type"] == "snapshot":
                side.clear()
            side.update(dict(levels))
            for price in [price for price, quantity in side.items() if quantity == "0"]:
                del side[price]
        assert checksum(self.bids, self._asks) == data["checksum"]


async def test_wrong_book_and_cut_venue_show_on_the_other_node(shared_redis: RedisServer) -> None:
    async with KrakenVenue() as venue:
        parts = [{"feed": feed_of(venue, "ORDERBOOK")}, {}]
        async with nodes(shared_redis, 2, lambda: parts.pop(0)) as (one, two):
            await until(lambda: one.server.feeds[0].publisher.published)
            viewer = Viewer(await RawClient.connect(two.port, two.token()))
            await viewer.subscribe(BOOK)
            venue.set_level("BTC/USD", "100.5", "0.10000000")
            await viewer.until("update")
            venue.set_level("BTC/USD", "99.5", "0.20000000", lose=True)
            venue.set_level("BTC/USD", "98.5", "0.30000000")
            await viewer.until("STALE", "LIVE", "snapshot")
            assert list(viewer.bids)[:4] == ["100.5", "100.0", "99.5", "99.0"]
            venue.set_level("BTC/USD", "99.5", "0.40000000")
            await viewer.until("update")
            venue.cut()
            await viewer.until("STALE")
            venue.set_level("BTC/USD", "99.5", "0.50000000")
            await viewer.until("LIVE", "update")
            assert viewer.bids["99.5"] == "0.50000000"
            await viewer.close()


async def test_two_nodes_publish_each_trade_of_a_venue_once(shared_redis: RedisServer) -> None:
    async with KrakenVenue() as venue:
        parts = [{"feed": feed_of(venue, "TRADES")} for _ in range(2)]
        async with nodes(shared_redis, 2, lambda: parts.pop(0)) as (one, two):
            await until(lambda: venue.subscribers("trade BTC/USD") == 2)
            viewer = Viewer(await RawClient.connect(two.port, two.token()))
            await viewer.subscribe(TRADES)
            for number in range(1, 51):
                venue.trade("BTC/USD", number, NOW_MS)
            # One of the feeds is restarted, and gets them again.
            await until(lambda: one.server.feeds[0].publisher.published >= 50)
            await one.server.feeds[0].stop()
            venue.trade("BTC/USD", 51, NOW_MS)
            await viewer.until("50", "51")
            assert viewer.seen == [str(number) for number in range(1, 52)]
            await viewer.close()
