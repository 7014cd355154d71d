"""Order books with several publishers, and the loss of a book's history."""

import orjson
import pytest

from server.core.errors import FloorcastError, RequestError
from server.core.log.entries import Entry
from server.core.log.idempotency import Claim
from server.services import PublishingConfig, PublishingService
from tests.kit.rigs.market import MarketRig

TOPIC = "ORDERBOOK:A"


async def two_nodes() -> tuple[MarketRig, PublishingService]:
    market = await MarketRig.create()
    await market.book("A", [("5", "1")], [("9", "1")], "snapshot")
    return market, PublishingService(PublishingConfig(), market.broker, market.clock)


async def stored_bids(market: MarketRig) -> list[list[str]]:
    latest = await market.broker.latest(TOPIC)
    assert latest is not None
    bids: list[list[str]] = orjson.loads(latest.data)["bids"]
    return bids


async def test_change_is_validated_against_other_publishers_changes() -> None:
    market, other = await two_nodes()
    await other.publish(TOPIC, {"bids": [["6", "1"]], "asks": [["9", "0"], ["7", "1"]]})
    with pytest.raises(RequestError, match="crossed"):
        await market.book("A", [("8", "1")], [])
    await market.book("A", [("5", "0")], [])
    assert await stored_bids(market) == [["6", "1"]]


async def test_outdated_cache_does_not_refuse_a_valid_change() -> None:
    market, other = await two_nodes()
    await other.publish(TOPIC, {"bids": [["6", "1"]], "asks": [["9", "0"]]})
    position = await market.book("A", [("9.5", "1")], [])
    assert position.seq == 3


async def test_retry_at_another_node_changes_nothing() -> None:
    market, other = await two_nodes()
    change = {"bids": [["5", "0"], ["4", "1"]], "asks": []}
    first = await market.publishing.publish(TOPIC, change, identifier="id")
    assert await other.publish(TOPIC, change, identifier="id") == first
    await other.publish(TOPIC, {"bids": [["3", "1"]], "asks": []})
    assert await stored_bids(market) == [["4", "1"], ["3", "1"]]


async def test_retry_known_to_the_broker_is_reverted_in_the_cache() -> None:
    market, other = await two_nodes()
    change = {"bids": [["4", "1"]], "asks": []}
    first = await other.publish(TOPIC, change, identifier="id")

    async def find(channel: str, claim: Claim) -> None:
        """Find nothing: the message arrives after this call."""

    market.broker.find = find  # type: ignore[method-assign]
    assert await market.publishing.publish(TOPIC, change, identifier="id") == first
    await market.book("A", [("4", "0")], [])
    assert await stored_bids(market) == [["5", "1"]]


async def test_lost_book_needs_a_snapshot() -> None:
    market, other = await two_nodes()
    await other.publish(TOPIC, {"bids": [["4", "1"]], "asks": []})
    await market.broker.forget(TOPIC)
    for publishing in (market.publishing, other):
        with pytest.raises(RequestError, match="publish a snapshot"):
            await publishing.publish(TOPIC, {"bids": [["4", "0"]], "asks": []})
    assert (await market.broker.head(TOPIC)).seq == 0
    await market.book("A", [("3", "1")], [], "snapshot")
    await other.publish(TOPIC, {"bids": [["2", "1"]], "asks": []})
    assert await stored_bids(market) == [["3", "1"], ["2", "1"]]


async def test_publisher_that_is_always_overtaken_gets_an_error() -> None:
    market, other = await two_nodes()
    latest = market.broker.latest

    async def overtaken(channel: str) -> Entry | None:
        found = await latest(channel)
        await other.publish(TOPIC, {"bids": [["1", "1"]], "asks": []})
        return found

    await other.publish(TOPIC, {"bids": [["1", "2"]], "asks": []})
    market.broker.latest = overtaken  # type: ignore[method-assign]
    with pytest.raises(FloorcastError) as refused:
        await market.book("A", [("2", "1")], [])
    assert refused.value.code == "server.overloaded"


async def test_first_message_of_a_book_is_a_snapshot() -> None:
    market = await MarketRig.create()
    for _ in range(2):
        with pytest.raises(RequestError) as refused:
            await market.book("B", [("1", "1")], [])
        assert refused.value.code == "publish.snapshot_required"
    assert (await market.broker.head("ORDERBOOK:B")).seq == 0
    await market.book("B", [("1", "1")], [], "snapshot")
    await market.book("B", [("2", "1")], [])
    assert (await market.broker.head("ORDERBOOK:B")).seq == 2
