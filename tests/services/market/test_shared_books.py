"""One book, several publishers, and what becomes of it when its history is lost."""

import orjson
import pytest

from server.core.errors import FloorcastError, RequestError
from server.core.log.entries import Entry
from server.core.log.idempotency import Claim
from server.services import PublishingConfig, PublishingService
from tests.kit.rigs.market import MarketRig

TOPIC = "ORDERBOOK:A"


async def two_nodes() -> tuple[MarketRig, PublishingService]:
    desk = await MarketRig.create()
    await desk.book("A", [("5", "1")], [("9", "1")], "snapshot")
    return desk, PublishingService(PublishingConfig(), desk.broker, desk.clock)


async def standing(desk: MarketRig) -> list[list[str]]:
    latest = await desk.broker.latest(TOPIC)
    assert latest is not None
    bids: list[list[str]] = orjson.loads(latest.data)["bids"]
    return bids


async def test_a_change_is_judged_by_what_others_have_published() -> None:
    desk, other = await two_nodes()
    await other.publish(TOPIC, {"bids": [["6", "1"]], "asks": [["9", "0"], ["7", "1"]]})
    with pytest.raises(RequestError, match="crossed"):
        await desk.book("A", [("8", "1")], [])
    await desk.book("A", [("5", "0")], [])
    assert await standing(desk) == [["6", "1"]]


async def test_a_refusal_out_of_ignorance_is_no_refusal() -> None:
    desk, other = await two_nodes()
    await other.publish(TOPIC, {"bids": [["6", "1"]], "asks": [["9", "0"]]})
    position = await desk.book("A", [("9.5", "1")], [])
    assert position.seq == 3


async def test_a_retry_at_another_node_is_no_second_change() -> None:
    desk, other = await two_nodes()
    change = {"bids": [["5", "0"], ["4", "1"]], "asks": []}
    first = await desk.publishing.publish(TOPIC, change, identifier="id")
    assert await other.publish(TOPIC, change, identifier="id") == first
    await other.publish(TOPIC, {"bids": [["3", "1"]], "asks": []})
    assert await standing(desk) == [["4", "1"], ["3", "1"]]


async def test_a_retry_that_the_broker_knew_first_is_taken_back_from_the_book() -> None:
    desk, other = await two_nodes()
    change = {"bids": [["4", "1"]], "asks": []}
    first = await other.publish(TOPIC, change, identifier="id")

    async def find(channel: str, claim: Claim) -> None:
        """It was not there yet when it was asked for."""

    desk.broker.find = find  # type: ignore[method-assign]
    assert await desk.publishing.publish(TOPIC, change, identifier="id") == first
    await desk.book("A", [("4", "0")], [])
    assert await standing(desk) == [["5", "1"]]


async def test_after_its_history_was_lost_a_book_has_to_be_published_whole() -> None:
    desk, other = await two_nodes()
    await other.publish(TOPIC, {"bids": [["4", "1"]], "asks": []})
    await desk.broker.forget(TOPIC)
    for publishing in (desk.publishing, other):
        with pytest.raises(RequestError, match="publish all of it"):
            await publishing.publish(TOPIC, {"bids": [["4", "0"]], "asks": []})
    assert (await desk.broker.head(TOPIC)).seq == 0
    await desk.book("A", [("3", "1")], [], "snapshot")
    await other.publish(TOPIC, {"bids": [["2", "1"]], "asks": []})
    assert await standing(desk) == [["3", "1"], ["2", "1"]]


async def test_who_never_gets_its_turn_is_told_to_come_back() -> None:
    desk, other = await two_nodes()
    latest = desk.broker.latest

    async def overtaken(channel: str) -> Entry | None:
        found = await latest(channel)
        await other.publish(TOPIC, {"bids": [["1", "1"]], "asks": []})
        return found

    await other.publish(TOPIC, {"bids": [["1", "2"]], "asks": []})
    desk.broker.latest = overtaken  # type: ignore[method-assign]
    with pytest.raises(FloorcastError) as refused:
        await desk.book("A", [("2", "1")], [])
    assert refused.value.code == "server.overloaded"
