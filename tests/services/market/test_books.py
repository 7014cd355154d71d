"""Publishing order books: validation, snapshots, checksums and failures."""

from typing import Any

import orjson
import pytest

from server.core.errors import FloorcastError, RequestError
from server.services import PublishingConfig
from tests.kit.checksum import checksum
from tests.kit.rigs.market import MarketRig

BIDS, ASKS = [("9.0", "1"), ("8.5", "2")], [("10.0", "3")]


async def market_with_book() -> MarketRig:
    market = await MarketRig.create()
    await market.book("A", BIDS, ASKS, "snapshot")
    return market


async def snapshot(market: MarketRig, name: str) -> dict[str, Any]:
    """The snapshot that a new subscriber gets."""
    market.connect(name)
    reply = await market.subscribe(name, "ORDERBOOK:A")
    received: dict[str, Any] = orjson.loads(orjson.dumps(reply))["ORDERBOOK:A"]["snapshot"]
    return received


async def test_new_subscriber_gets_the_book_with_its_checksum() -> None:
    market = await market_with_book()
    await market.book("A", [("8.5", "0"), ("8.7", "5")], [])
    received = await snapshot(market, "first")
    assert (received["type"], received["seq"]) == ("snapshot", 2)
    assert received["data"]["bids"] == [["9.0", "1"], ["8.7", "5"]]
    assert received["data"]["asks"] == [["10.0", "3"]]
    assert received["data"]["checksum"] == checksum(dict(received["data"]["bids"]), {"10.0": "3"})
    await market.book("A", [("9.0", "0")], [])
    again = await snapshot(market, "second")
    assert (again["seq"], again["data"]["bids"]) == (3, [["8.7", "5"]])


async def test_change_carries_the_checksum_of_the_resulting_book() -> None:
    market = await market_with_book()
    ann = await market.client("ann", "ORDERBOOK:A")
    await market.book("A", [("8.0", "4"), ("9.0", "0")], [])
    market.settle()
    [change] = ann.messages("orderbook")
    assert change["type"] == "update"
    assert change["data"]["bids"] == [["9.0", "0"], ["8.0", "4"]]
    assert change["data"]["checksum"] == checksum({"8.5": "2", "8.0": "4"}, {"10.0": "3"})


async def test_republished_book_reaches_subscribers_as_snapshot() -> None:
    market = await market_with_book()
    ann = await market.client("ann", "ORDERBOOK:A")
    await market.book("A", [("5", "1")], [("6", "1")], "snapshot")
    market.settle()
    [message] = ann.messages("orderbook")
    assert (message["type"], message["data"]["bids"]) == ("snapshot", [["5", "1"]])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"bids": [["10.0", "1"]], "asks": []}, "crossed"),
        ({"bids": [["8", "1"], ["8.0", "1"]], "asks": []}, "twice"),
        ({"bids": [["8", "1"]], "asks": [], "checksum": 1}, "checksum"),
        ({"bids": [["8", "1"]]}, "asks: Field required"),
        ({"bids": [["8"]], "asks": []}, "bids.0.1"),
        ({"bids": [["8", 1]], "asks": []}, "bids.0.1"),
        ({"bids": [["8", "-1"]], "asks": []}, "bids.0.1"),
        ({"bids": [["1e3", "1"]], "asks": []}, "bids.0.0"),
        ({"bids": [["NaN", "1"]], "asks": []}, "bids.0.0"),
        ({"bids": "8:1", "asks": []}, "bids"),
        ({"bids": [], "asks": [], "depth": 5}, "depth"),
    ],
)
async def test_invalid_book_is_refused_and_changes_nothing(
    data: dict[str, Any], reason: str
) -> None:
    market = await market_with_book()
    with pytest.raises(RequestError, match=reason) as refused:
        await market.publishing.publish("ORDERBOOK:A", data)
    assert refused.value.code == "request.invalid"
    received = await snapshot(market, "ann")
    assert (received["seq"], received["data"]["bids"]) == (1, [list(level) for level in BIDS])


async def test_subscribers_see_levels_beyond_the_depth_removed() -> None:
    market = await MarketRig.create(publishing=PublishingConfig(book_levels=2))
    await market.book("A", BIDS, ASKS, "snapshot")
    ann = await market.client("ann", "ORDERBOOK:A")
    await market.book("A", [("8.8", "1")], [])
    market.settle()
    assert ann.messages()[0]["data"]["bids"] == [["8.8", "1"], ["8.5", "0"]]


async def test_change_refused_by_the_broker_is_reverted() -> None:
    market = await market_with_book()
    await market.broker.stop()
    with pytest.raises(FloorcastError):
        await market.book("A", [("9.5", "1")], [])
    with pytest.raises(FloorcastError):
        await market.book("B", [("9.5", "1")], [], "snapshot")
    await market.broker.start(market.hub.deliver)
    assert (await market.book("A", [], [("9.4", "1")])).seq == 2, (
        "a bid of 9.5 would make it crossed"
    )


async def test_retried_change_keeps_its_position_after_later_changes() -> None:
    market = await market_with_book()
    data = {"bids": [["9.9", "1"]], "asks": []}
    first = await market.publishing.publish("ORDERBOOK:A", data, identifier="x")
    await market.book("A", [("9.9", "0")], [("9.8", "1")])
    assert await market.publishing.publish("ORDERBOOK:A", data, identifier="x") == first
    with pytest.raises(RequestError, match="crossed"):
        await market.publishing.publish("ORDERBOOK:A", data, identifier="y")
