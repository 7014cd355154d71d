"""Views of books on one node: derived once while somebody listens, and served as any topic."""

from typing import Any

import orjson
import pytest

from client_sdk.contract import ErrorCode
from server.access import AuthorizationRule, Principal
from server.core.errors import AccessError, RequestError
from server.delivery import DeliveryConfig
from server.services.market.subscribing import SubscribingService
from tests.kit.rigs.market import STALE, MarketRig, trader

BIDS = [("9", "1"), ("8", "1"), ("7", "1")]
ASKS = [("10", "1"), ("11", "1"), ("12", "1")]


async def book_market(*, recoverable: bool = False) -> MarketRig:
    """A market with one book."""
    market = await MarketRig.create(DeliveryConfig(recoverable=recoverable), STALE)
    await market.book("A", BIDS, ASKS, "snapshot")
    return market


async def test_view_starts_at_the_position_of_its_book() -> None:
    market = await book_market()
    await market.book("A", [("6", "1")], [])
    market.connect("ann")
    reply: Any = orjson.loads(orjson.dumps(await market.subscribe("ann", "ORDERBOOK:A@2")))
    view = reply["ORDERBOOK:A@2"]
    assert (view["seq"], view["snapshot"]["seq"], view["snapshot"]["view"]) == (2, 2, "2")
    assert view["snapshot"]["data"]["bids"] == [["9", "1"], ["8", "1"]]


async def test_view_sends_only_what_changes_it() -> None:
    market = await book_market()
    ann = await market.client("ann", "ORDERBOOK:A@2")
    await market.book("A", [("6", "1")], [])
    await market.book("A", [("8.5", "2")], [])
    market.settle()
    (message,) = ann.messages("orderbook")
    assert (message["seq"], message["prev"], message["view"]) == (3, 1, "2")
    assert message["data"]["bids"] == [["8", "0"], ["8.5", "2"]]
    assert "merged" not in message


async def test_views_of_one_book_share_its_channel_and_end_with_their_clients() -> None:
    market = await book_market()
    await market.client("ann", "ORDERBOOK:A@2", "ORDERBOOK:A@1/5")
    await market.client("bob", "ORDERBOOK:A@2")
    names = sorted(each.name for each in market.hub.channels())
    assert names == ["ORDERBOOK:A", "ORDERBOOK:A@1/5", "ORDERBOOK:A@2"]
    await market.service.unsubscribe("ann", trader(), ["ORDERBOOK:A@2", "ORDERBOOK:A@1/5"])
    assert sorted(each.name for each in market.hub.channels()) == ["ORDERBOOK:A", "ORDERBOOK:A@2"]
    await market.service.remove_connection("bob")
    assert market.hub.channels() == ()


async def test_view_of_an_unknown_book_begins_with_its_first_snapshot() -> None:
    market = await MarketRig.create()
    ann = market.connect("ann")
    reply = await market.subscribe("ann", "ORDERBOOK:A@2")
    assert (reply["ORDERBOOK:A@2"]["known"], reply["ORDERBOOK:A@2"]["snapshot"]) == (False, None)
    await market.book("A", BIDS, ASKS, "snapshot")
    market.settle()
    (message,) = ann.messages("orderbook")
    assert (message["type"], message["seq"], message["prev"]) == ("snapshot", 1, 0)
    assert len(message["data"]["bids"]) == 2


async def test_joining_client_brings_the_others_to_the_same_position() -> None:
    market = await book_market()
    ann = await market.client("ann", "ORDERBOOK:A@1")
    await market.book("A", [("7", "5")], [])
    bob = await market.client("bob", "ORDERBOOK:A@1")
    (message,) = ann.messages("orderbook")
    assert (message["seq"], message["data"]["bids"], message["data"]["asks"]) == (2, [], [])
    await market.book("A", [("9", "5")], [])
    market.settle()
    assert ann.written[-1] is bob.written[-1]
    assert bob.messages("orderbook")[0]["prev"] == 2


async def test_view_is_as_stale_as_its_book() -> None:
    market = await book_market()
    ann = await market.client("ann", "ORDERBOOK:A@2")
    market.pass_time(11.0)
    (status,) = ann.messages("status")
    assert (status["state"], status["view"]) == ("STALE", "2")
    late = await market.client("late", "ORDERBOOK:A@2")
    market.settle()
    assert late.messages("status")[0]["state"] == "STALE"
    # Beyond the depth of the view, but the feed is alive.
    await market.book("A", [("6", "1")], [])
    assert [each["state"] for each in ann.messages("status")] == ["STALE", "LIVE"]
    market.pass_time(9.0)
    assert len(ann.messages("status")) == 2


async def test_quiet_view_gets_heartbeats_at_the_position_of_its_clients() -> None:
    market = await book_market()
    ann = await market.client("ann", "ORDERBOOK:A@1")
    for _ in range(4):
        await market.book("A", [("7", str(market.clock.time()))], [])
        market.pass_time(5.0)
    (beat,) = ann.messages("orderbook")
    assert (beat["type"], beat["seq"], beat["prev"]) == ("heartbeat", 1, 1)


async def test_lost_connection_resumes_a_view_where_it_was() -> None:
    market = await book_market(recoverable=True)
    ann = market.connect("ann", numbered=True)
    await market.subscribe("ann", "ORDERBOOK:A@1")
    for quantity in ("2", "3"):
        await market.book("A", [("6", quantity)], [])
        await market.book("A", [("9", quantity)], [])
        market.settle()
    *_, (_, _, offset) = ann.numbered_events()
    market.park("ann")
    await market.book("A", [("9", "4")], [])
    await market.book("A", [("5", "4")], [])
    market.settle()
    link = market.link()
    assert market.resume("ann", link, offset)
    (message,) = link.messages("orderbook")
    assert (message["type"], message["prev"], message["seq"]) == ("update", 5, 6)
    assert message["data"]["bids"] == [["9", "4"]]


async def test_view_is_not_published_to() -> None:
    market = await book_market()
    with pytest.raises(RequestError, match=r"publish ORDERBOOK:A$"):
        await market.publishing.publish("ORDERBOOK:A@2", {"bids": [], "asks": []}, kind="snapshot")


class OnlyB(AuthorizationRule):
    """A rule of the application that knows exact names."""

    async def check_subscribe(self, principal: Principal, topic: str) -> None:
        if topic == "ORDERBOOK:A":
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, "not this one")


async def test_rule_of_a_topic_holds_for_its_views() -> None:
    market = await book_market()
    service = market.service
    market.service = SubscribingService(
        service._config,
        service._topics,
        market.subscriptions,
        market.hub,
        market.instruments,
        market.patterns,
        OnlyB(),
    )
    market.connect("ann")
    reply = await market.subscribe("ann", "ORDERBOOK:A@2", "ORDERBOOK:B@2")
    assert [each["status"] for each in reply.values()] == ["ERROR", "CONNECTED"]
