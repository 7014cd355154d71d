"""SubscribingService without sockets: replies, races with leaving, and cleanup."""

import asyncio
from typing import Any

import pytest

from client_sdk.contract import ErrorCode
from server.brokers import MemoryBroker
from server.core.errors import FloorcastError
from server.core.log.entries import Entry, Position, Reset
from server.services import PublishingConfig
from tests.kit.rigs.market import MarketRig, trader


async def test_messages_of_one_turn_are_one_write_for_all_clients() -> None:
    market = await MarketRig.create()
    ann, bob = await market.client("ann", "PRICE:A"), await market.client("bob", "PRICE:A")
    for _ in range(3):
        await market.price("A")
    assert ann.written == []
    assert len(market.scheduled) == 1
    market.run_scheduled()
    assert len(ann.written) == 1
    assert ann.written[0] is bob.written[0]
    assert [each["seq"] for each in ann.messages("price")] == [1, 2, 3]


async def test_subscriber_within_the_turn_gets_only_the_snapshot() -> None:
    market = await MarketRig.create()
    early = await market.client("early", "PRICE:A")
    await market.price("A")
    late = market.connect("late")
    reply = await market.subscribe("late", "PRICE:A")
    assert reply["PRICE:A"]["seq"] == 1
    market.settle()
    assert late.written == []
    assert len(early.written) == 1


async def test_removed_connection_is_not_subscribed() -> None:
    market = await MarketRig.create()
    await market.client("ann")
    await market.service.remove_connection("ann")
    reply = await market.subscribe("ann", "PRICE:A")
    assert reply["PRICE:A"]["status"] == "ERROR"
    assert len(market.subscriptions) == 0
    assert market.hub.link_count == 0
    assert market.hub.channels() == ()


class BrokenUnwatch(MemoryBroker):
    """A broker that fails to unwatch the first channel."""

    failing = True

    async def unwatch(self, channel: str) -> None:
        if self.failing:
            self.failing = False
            raise ConnectionError("the broker of an application failed")
        await super().unwatch(channel)


async def test_removed_connection_leaves_all_topics_although_one_fails() -> None:
    market = await MarketRig.create(broker=BrokenUnwatch)
    await market.client("ann", "PRICE:A", "PRICE:B", "PRICE:C")
    with pytest.raises(ConnectionError):
        await market.service.remove_connection("ann")
    assert market.hub.channels() == ()


async def test_topic_without_subscribers_encodes_nothing() -> None:
    market = await MarketRig.create()
    ann = await market.client("ann", "PRICE:A")
    await market.service.unsubscribe("ann", trader(), ["PRICE:A"])
    await market.price("A")
    assert market.scheduled == []
    assert ann.written == []
    assert market.hub.channels() == ()


async def test_merged_stream_grants_the_next_offered_interval() -> None:
    market = await MarketRig.create()
    market.connect("ann")
    granted = []
    for requested_ms in (0, 1, 100, 101, 999, 1000, 5000):
        reply = await market.subscribe("ann", "PRICE:A", "TRADES:A", interval_ms=requested_ms)
        granted.append((reply["PRICE:A"]["interval_ms"], reply["TRADES:A"]["interval_ms"]))
    assert granted == [(0, 0), (100, 0), (100, 0), (250, 0), (1000, 0), (1000, 0), (1000, 0)]
    listed = market.service.subscriptions("ann")
    assert listed["PRICE:A"]["interval_ms"] == 1000


async def test_books_that_exceed_the_reply_follow_as_messages() -> None:
    market = await MarketRig.create(publishing=PublishingConfig(book_levels=1000))
    names = [f"B{number}" for number in range(8)]
    for name in names:
        bids = [(f"{price}.00", "1.000") for price in range(1, 1000)]
        await market.book(name, bids, [("2000.00", "1")], "snapshot")
    ann = market.connect("ann")
    reply = await market.subscribe("ann", *(f"ORDERBOOK:{name}" for name in names))
    in_reply = [name for name in names if reply[f"ORDERBOOK:{name}"]["snapshot"] is not None]
    assert 0 < len(in_reply) < len(names)
    market.settle()
    sent = ann.messages("orderbook")
    assert [each["symbol"] for each in sent] == [name for name in names if name not in in_reply]
    assert all((each["type"], each["seq"], each["prev"]) == ("snapshot", 1, 1) for each in sent)
    assert all(len(each["data"]["bids"]) == 999 for each in sent)


class SlowBroker(MemoryBroker):
    """A broker that returns a topic's state only when the test releases it."""

    released: asyncio.Event
    failing = False

    async def latest(self, channel: str) -> Entry | None:
        entry = await super().latest(channel)
        await self.released.wait()
        if self.failing:
            raise FloorcastError(ErrorCode.SERVER_INTERNAL, "the broker does not answer")
        return entry


async def slow_market() -> tuple[MarketRig, SlowBroker]:
    market = MarketRig(broker=SlowBroker)
    broker = market.broker
    assert isinstance(broker, SlowBroker)
    broker.released = asyncio.Event()
    await broker.start(market.hub.deliver)
    return market, broker


async def test_messages_during_state_loading_are_applied_once() -> None:
    market, broker = await slow_market()
    await market.price("A", 1)
    first, second = market.connect("first"), market.connect("second")
    pending = [
        asyncio.ensure_future(market.subscribe(name, "PRICE:A")) for name in ("first", "second")
    ]
    await asyncio.sleep(0)
    for last in (2, 3):
        await market.price("A", last)
    broker.released.set()
    for reply in await asyncio.gather(*pending):
        assert reply["PRICE:A"]["seq"] == 3
    await market.price("A", 4)
    market.settle()
    for link in (first, second):
        assert [(each["seq"], each["prev"]) for each in link.messages("price")] == [(4, 3)]


async def test_failing_broker_leaves_only_an_error_status() -> None:
    market, broker = await slow_market()
    broker.failing = True
    broker.released.set()
    market.connect("ann")
    reply = await market.subscribe("ann", "PRICE:A")
    assert reply["PRICE:A"]["status"] == "ERROR"
    [subscription] = market.subscriptions.of_user("default", "ann")
    assert [each.status for each in market.subscriptions.of_user("default", "ann")] == ["ERROR"]
    assert market.hub.channels() == ()
    broker.failing = False
    reply = await market.subscribe("ann", "PRICE:A")
    assert reply["PRICE:A"]["status"] == "CONNECTED"
    assert subscription.status == "CONNECTED"


async def test_leaving_during_state_loading_leaves_no_state() -> None:
    market, broker = await slow_market()
    market.connect("ann")
    pending = asyncio.ensure_future(market.subscribe("ann", "PRICE:A"))
    await asyncio.sleep(0)
    await market.service.remove_connection("ann")
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    broker.released.set()
    await market.price("A")
    assert market.scheduled == []
    assert len(market.subscriptions) == 0
    assert market.hub.channels() == ()
    assert market.subscriptions.users_of("PRICE:A") == ()


class StuckBroker(MemoryBroker):
    """A broker that blocks or fails at one topic and serves all others."""

    stuck: str = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def watch(self, channel: str) -> None:
        await super().watch(channel)
        if channel == self.stuck:
            await self.answered

    async def since(self, channel: str, position: Position) -> list[Entry] | None:
        if channel == self.stuck:
            await self.answered
        return await super().since(channel, position)


async def stuck_market(stuck: str) -> tuple[MarketRig, StuckBroker]:
    market = MarketRig(broker=StuckBroker)
    broker = market.broker
    assert isinstance(broker, StuckBroker)
    await broker.start(market.hub.deliver)
    broker.stuck = stuck
    return market, broker


NO_ANSWER = FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker does not answer")


async def test_failing_topic_does_not_affect_the_others() -> None:
    market, broker = await stuck_market("PRICE:B")
    broker.answered.set_exception(NO_ANSWER)
    market.connect("ann")
    reply = await market.subscribe("ann", "PRICE:A", "PRICE:B", "PRICE:A", "WRONG", "TRADES:A")
    assert {topic: each["status"] for topic, each in reply.items()} == {
        "PRICE:A": "CONNECTED",
        "PRICE:B": "ERROR",
        "WRONG": "ERROR",
        "TRADES:A": "CONNECTED",
    }
    assert [each.name for each in market.hub.channels()] == ["PRICE:A", "TRADES:A"]


async def test_cancelled_request_leaves_no_pending_subscription() -> None:
    market, _ = await stuck_market("PRICE:C")
    await market.client("bob", "PRICE:B")
    market.connect("ann")
    pending = asyncio.ensure_future(market.subscribe("ann", "PRICE:A", "PRICE:B", "PRICE:C"))
    await asyncio.sleep(0)
    assert len(market.hub.channels()) == 2
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    assert [each.status for each in market.subscriptions.of_user("default", "ann")] == ["ERROR"] * 3
    assert [each.name for each in market.hub.channels()] == ["PRICE:B"], "bob is subscribed to it"
    await market.service.remove_connection("bob")
    assert market.hub.channels() == ()


async def test_topic_failing_after_another_connection_left_is_closed() -> None:
    market, broker = await stuck_market("TRADES:A")
    broker.stuck = ""
    await market.trade("A", 1)
    for name in ("desk", "phone"):
        market.connect(name, trader("ann"))
    await market.subscribe("desk", "TRADES:A", user="ann")
    broker.stuck = "TRADES:A"
    since = {"TRADES:A": Position("e1", 0)}
    pending = asyncio.ensure_future(
        market.service.subscribe("phone", trader("ann"), ["TRADES:A"], since=since)
    )
    await asyncio.sleep(0)
    await market.service.remove_connection("desk")
    broker.answered.set_exception(NO_ANSWER)
    reply = await pending
    assert reply["TRADES:A"]["error"]["code"] == "server.overloaded"  # type: ignore[index]
    assert market.hub.channels() == ()


async def test_reset_during_subscribing_recovers_nothing() -> None:
    market, broker = await stuck_market("PRICE:B")
    for number in (1, 2):
        await market.trade("A", number)
    market.connect("ann")
    since = {"TRADES:A": Position("e1", 1)}
    pending = asyncio.ensure_future(
        market.service.subscribe("ann", trader("ann"), ["TRADES:A", "PRICE:B"], since=since)
    )
    await asyncio.sleep(0)
    market.hub.reset(Reset("TRADES:A", Position("e2", 0), None))
    broker.answered.set_result(None)
    reply = (await pending)["TRADES:A"]
    assert (reply["epoch"], reply["seq"]) == ("e2", 0)
    assert (reply["recovered"], reply["missed"], reply["snapshot"]) == (False, [], None)
