"""Publishing books: checked against what stands, whole on request, nothing half done."""

from typing import Any

import orjson
import pytest

from server.core.errors import FloorcastError, RequestError
from server.services import PublishingConfig
from tests.kit.checksum import checksum
from tests.kit.rigs.market import MarketRig

BIDS, ASKS = [("9.0", "1"), ("8.5", "2")], [("10.0", "3")]


async def desk_with_book() -> MarketRig:
    desk = await MarketRig.create()
    await desk.book("A", BIDS, ASKS, "snapshot")
    return desk


async def snapshot(desk: MarketRig, name: str) -> dict[str, Any]:
    """What a newcomer is given."""
    desk.connect(name)
    reply = await desk.subscribe(name, "ORDERBOOK:A")
    given: dict[str, Any] = orjson.loads(orjson.dumps(reply))["ORDERBOOK:A"]["snapshot"]
    return given


async def test_a_newcomer_gets_the_whole_book_with_a_checksum_that_it_can_compute() -> None:
    desk = await desk_with_book()
    await desk.book("A", [("8.5", "0"), ("8.7", "5")], [])
    given = await snapshot(desk, "first")
    assert (given["type"], given["seq"]) == ("snapshot", 2)
    assert given["data"]["bids"] == [["9.0", "1"], ["8.7", "5"]]
    assert given["data"]["asks"] == [["10.0", "3"]]
    assert given["data"]["checksum"] == checksum(dict(given["data"]["bids"]), {"10.0": "3"})
    await desk.book("A", [("9.0", "0")], [])
    again = await snapshot(desk, "second")
    assert (again["seq"], again["data"]["bids"]) == (3, [["8.7", "5"]])


async def test_a_listener_gets_changes_with_the_checksum_of_the_book_they_lead_to() -> None:
    desk = await desk_with_book()
    ann = await desk.client("ann", "ORDERBOOK:A")
    await desk.book("A", [("8.0", "4"), ("9.0", "0")], [])
    desk.settle()
    [change] = ann.messages("orderbook")
    assert change["type"] == "update"
    assert change["data"]["bids"] == [["9.0", "0"], ["8.0", "4"]]
    assert change["data"]["checksum"] == checksum({"8.5": "2", "8.0": "4"}, {"10.0": "3"})


async def test_a_book_that_is_published_anew_reaches_listeners_as_a_snapshot() -> None:
    desk = await desk_with_book()
    ann = await desk.client("ann", "ORDERBOOK:A")
    await desk.book("A", [("5", "1")], [("6", "1")], "snapshot")
    desk.settle()
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
async def test_a_book_that_makes_no_sense_is_refused_with_the_reason_and_changes_nothing(
    data: dict[str, Any], reason: str
) -> None:
    desk = await desk_with_book()
    with pytest.raises(RequestError, match=reason) as refused:
        await desk.publishing.publish("ORDERBOOK:A", data)
    assert refused.value.code == "request.invalid"
    given = await snapshot(desk, "ann")
    assert (given["seq"], given["data"]["bids"]) == (1, [list(level) for level in BIDS])


async def test_a_book_has_a_bounded_depth_and_listeners_see_what_fell_off() -> None:
    desk = await MarketRig.create(publishing=PublishingConfig(book_levels=2))
    await desk.book("A", BIDS, ASKS, "snapshot")
    ann = await desk.client("ann", "ORDERBOOK:A")
    await desk.book("A", [("8.8", "1")], [])
    desk.settle()
    assert ann.messages()[0]["data"]["bids"] == [["8.8", "1"], ["8.5", "0"]]


async def test_a_change_that_the_broker_did_not_take_did_not_happen() -> None:
    desk = await desk_with_book()
    await desk.broker.stop()
    with pytest.raises(FloorcastError):
        await desk.book("A", [("9.5", "1")], [])
    with pytest.raises(FloorcastError):
        await desk.book("B", [("9.5", "1")], [], "snapshot")
    await desk.broker.start(desk.hub.deliver)
    assert (await desk.book("A", [], [("9.4", "1")])).seq == 2, "9.5 would cross it"


async def test_a_retry_of_a_change_is_known_even_where_it_would_not_fit_any_more() -> None:
    desk = await desk_with_book()
    data = {"bids": [["9.9", "1"]], "asks": []}
    first = await desk.publishing.publish("ORDERBOOK:A", data, identifier="x")
    await desk.book("A", [("9.9", "0")], [("9.8", "1")])
    assert await desk.publishing.publish("ORDERBOOK:A", data, identifier="x") == first
    with pytest.raises(RequestError, match="crossed"):
        await desk.publishing.publish("ORDERBOOK:A", data, identifier="y")
