"""A feed gives whole books and offsets; what is published is the difference, and once."""

import pytest

from server.brokers import MemoryBroker
from server.core.errors import RequestError
from server.services.market.feed_publisher import FeedPublisher
from tests.kit.rigs.market import MarketRig

BIDS = [("9", "1"), ("8", "2")]
ASKS = [("10", "1")]


async def feed_of(market: MarketRig, name: str = "venue") -> FeedPublisher:
    return FeedPublisher(market.publishing, name)


async def test_first_book_is_a_snapshot_and_later_ones_are_differences() -> None:
    market = await MarketRig.create()
    ann = await market.client("ann", "ORDERBOOK:A")
    feed = await feed_of(market)
    await feed.publish_book("A", BIDS, ASKS)
    assert await feed.publish_book("A", BIDS, ASKS) is None
    await feed.publish_book("A", [("9", "3"), ("7", "1")], ASKS)
    market.settle()
    first, second = ann.messages("orderbook")
    assert (first["type"], first["data"]["bids"]) == ("snapshot", [["9", "1"], ["8", "2"]])
    assert second["type"] == "update"
    assert sorted(second["data"]["bids"]) == [["7", "1"], ["8", "0"], ["9", "3"]]
    assert second["data"]["asks"] == []


async def test_levels_that_cross_in_passing_are_published_together() -> None:
    market = await MarketRig.create()
    feed = await feed_of(market)
    await feed.publish_book("A", [("9", "1")], [("10", "1")])
    # All of the old bids lie above the new asks.
    position = await feed.publish_book("A", [("6", "1")], [("7", "1")])
    assert position is not None
    assert position.seq == 2


async def test_book_that_the_server_has_lost_is_published_whole() -> None:
    market = await MarketRig.create()
    feed = await feed_of(market)
    await feed.publish_book("A", BIDS, ASKS)
    other = await MarketRig.create()
    feed._publishing = other.publishing
    ann = await other.client("ann", "ORDERBOOK:A")
    await feed.publish_book("A", [("9", "3"), ("8", "2")], ASKS)
    other.settle()
    [message] = ann.messages("orderbook")
    assert message["type"] == "snapshot"
    assert message["data"]["bids"] == [["9", "3"], ["8", "2"]]


async def test_book_that_was_refused_is_followed_by_a_snapshot() -> None:
    market = await MarketRig.create()
    feed = await feed_of(market)
    await feed.publish_book("A", BIDS, ASKS)
    ann = await market.client("ann", "ORDERBOOK:A")
    with pytest.raises(RequestError, match="crossed"):
        await feed.publish_book("A", [("11", "1")], ASKS)
    await feed.publish_book("A", BIDS, ASKS)
    market.settle()
    assert [each["type"] for each in ann.messages("orderbook")][-1] == "snapshot"


async def test_message_with_an_offset_is_published_once() -> None:
    market = await MarketRig.create()
    assert isinstance(market.broker, MemoryBroker)
    trade = {"id": 1, "price": "1", "qty": "1", "side": "buy", "ts": 1}
    positions = []
    for feed in (await feed_of(market), await feed_of(market), await feed_of(market, "other")):
        position = await feed.publish("TRADES:A", {"trades": [trade]}, identifier="7")
        positions.append(position.seq)
    # A feed that was restarted, and another one whose offsets count alike.
    assert positions == [1, 1, 2]
