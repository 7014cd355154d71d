"""Subscribing without sockets: what a newcomer hears, who has gone meanwhile, what is left."""

import asyncio
from typing import Any

import pytest

from client_sdk.contract import ErrorCode
from server.brokers import MemoryBroker
from server.core.errors import FloorcastError
from server.core.log.entries import Entry, Position, Reset
from server.services import PublishingConfig
from tests.kit.rigs.market import MarketRig, trader


async def test_what_is_published_in_one_turn_is_one_write_shared_by_all() -> None:
    desk = await MarketRig.create()
    ann, bob = await desk.client("ann", "PRICE:A"), await desk.client("bob", "PRICE:A")
    for _ in range(3):
        await desk.price("A")
    assert ann.written == []
    assert len(desk.scheduled) == 1
    desk.run_scheduled()
    assert len(ann.written) == 1
    assert ann.written[0] is bob.written[0]
    assert [each["seq"] for each in ann.messages("price")] == [1, 2, 3]


async def test_who_subscribes_before_the_turn_ends_hears_the_snapshot_and_not_the_update() -> None:
    desk = await MarketRig.create()
    early = await desk.client("early", "PRICE:A")
    await desk.price("A")
    late = desk.connect("late")
    reply = await desk.subscribe("late", "PRICE:A")
    assert reply["PRICE:A"]["seq"] == 1
    desk.settle()
    assert late.written == []
    assert len(early.written) == 1


async def test_who_has_gone_while_the_broker_was_asked_is_not_subscribed() -> None:
    desk = await MarketRig.create()
    await desk.client("ann")
    await desk.service.remove_connection("ann")
    reply = await desk.subscribe("ann", "PRICE:A")
    assert reply["PRICE:A"]["status"] == "ERROR"
    assert len(desk.subscriptions) == 0
    assert desk.hub.link_count == 0
    assert desk.hub.channels() == ()


async def test_nothing_is_encoded_where_nobody_listens() -> None:
    desk = await MarketRig.create()
    ann = await desk.client("ann", "PRICE:A")
    await desk.service.unsubscribe("ann", trader(), ["PRICE:A"])
    await desk.price("A")
    assert desk.scheduled == []
    assert ann.written == []
    assert desk.hub.channels() == ()


async def test_a_pace_is_granted_at_the_next_that_is_offered_where_messages_merge() -> None:
    desk = await MarketRig.create()
    desk.connect("ann")
    granted = []
    for asked in (0, 1, 100, 101, 999, 1000, 5000):
        reply = await desk.subscribe("ann", "PRICE:A", "TRADES:A", interval_ms=asked)
        granted.append((reply["PRICE:A"]["interval_ms"], reply["TRADES:A"]["interval_ms"]))
    assert granted == [(0, 0), (100, 0), (100, 0), (250, 0), (1000, 0), (1000, 0), (1000, 0)]
    listed = desk.service.subscriptions("ann")
    assert listed["PRICE:A"]["interval_ms"] == 1000


async def test_deep_books_that_do_not_fit_into_the_answer_come_as_messages() -> None:
    desk = await MarketRig.create(publishing=PublishingConfig(book_levels=1000))
    names = [f"B{number}" for number in range(8)]
    for name in names:
        bids = [(f"{price}.00", "1.000") for price in range(1, 1000)]
        await desk.book(name, bids, [("2000.00", "1")])
    ann = desk.connect("ann")
    reply = await desk.subscribe("ann", *(f"ORDERBOOK:{name}" for name in names))
    given = [name for name in names if reply[f"ORDERBOOK:{name}"]["snapshot"] is not None]
    assert 0 < len(given) < len(names)
    desk.settle()
    sent = ann.messages("orderbook")
    assert [each["symbol"] for each in sent] == [name for name in names if name not in given]
    assert all((each["type"], each["seq"], each["prev"]) == ("snapshot", 1, 1) for each in sent)
    assert all(len(each["data"]["bids"]) == 999 for each in sent)


class SlowBroker(MemoryBroker):
    """A broker that tells a topic's state only when the test says so."""

    released: asyncio.Event
    failing = False

    async def latest(self, channel: str) -> Entry | None:
        entry = await super().latest(channel)
        await self.released.wait()
        if self.failing:
            raise FloorcastError(ErrorCode.SERVER_INTERNAL, "the broker does not answer")
        return entry


async def slow_desk() -> tuple[MarketRig, SlowBroker]:
    desk = MarketRig(broker=SlowBroker)
    broker = desk.broker
    assert isinstance(broker, SlowBroker)
    broker.released = asyncio.Event()
    await broker.start(desk.hub.deliver)
    return desk, broker


async def test_what_comes_while_the_state_is_fetched_is_part_of_it_once() -> None:
    desk, broker = await slow_desk()
    await desk.price("A", 1)
    first, second = desk.connect("first"), desk.connect("second")
    asked = [asyncio.ensure_future(desk.subscribe(name, "PRICE:A")) for name in ("first", "second")]
    await asyncio.sleep(0)
    for last in (2, 3):
        await desk.price("A", last)
    broker.released.set()
    for reply in await asyncio.gather(*asked):
        assert reply["PRICE:A"]["seq"] == 3
    await desk.price("A", 4)
    desk.settle()
    for link in (first, second):
        assert [(each["seq"], each["prev"]) for each in link.messages("price")] == [(4, 3)]


async def test_a_broker_that_fails_is_an_error_and_leaves_nothing_but_the_state() -> None:
    desk, broker = await slow_desk()
    broker.failing = True
    broker.released.set()
    desk.connect("ann")
    reply = await desk.subscribe("ann", "PRICE:A")
    assert reply["PRICE:A"]["status"] == "ERROR"
    [subscription] = desk.subscriptions.of_user("default", "ann")
    assert [each.status for each in desk.subscriptions.of_user("default", "ann")] == ["ERROR"]
    assert desk.hub.channels() == ()
    broker.failing = False
    reply = await desk.subscribe("ann", "PRICE:A")
    assert reply["PRICE:A"]["status"] == "CONNECTED"
    assert subscription.status == "CONNECTED"


async def test_who_leaves_while_the_state_is_fetched_leaves_nothing_behind() -> None:
    desk, broker = await slow_desk()
    desk.connect("ann")
    asked = asyncio.ensure_future(desk.subscribe("ann", "PRICE:A"))
    await asyncio.sleep(0)
    await desk.service.remove_connection("ann")
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    broker.released.set()
    await desk.price("A")
    assert desk.scheduled == []
    assert len(desk.subscriptions) == 0
    assert desk.hub.channels() == ()
    assert desk.subscriptions.users_of("PRICE:A") == ()


class StuckBroker(MemoryBroker):
    """A broker that is stuck at one topic, or fails there, and serves all others."""

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


async def stuck_desk(stuck: str) -> tuple[MarketRig, StuckBroker]:
    desk = MarketRig(broker=StuckBroker)
    broker = desk.broker
    assert isinstance(broker, StuckBroker)
    await broker.start(desk.hub.deliver)
    broker.stuck = stuck
    return desk, broker


NO_ANSWER = FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker does not answer")


async def test_a_topic_that_fails_keeps_none_of_the_others_back() -> None:
    desk, broker = await stuck_desk("PRICE:B")
    broker.answered.set_exception(NO_ANSWER)
    desk.connect("ann")
    reply = await desk.subscribe("ann", "PRICE:A", "PRICE:B", "PRICE:A", "WRONG", "TRADES:A")
    assert {topic: each["status"] for topic, each in reply.items()} == {
        "PRICE:A": "CONNECTED",
        "PRICE:B": "ERROR",
        "WRONG": "ERROR",
        "TRADES:A": "CONNECTED",
    }
    assert [each.name for each in desk.hub.channels()] == ["PRICE:A", "TRADES:A"]


async def test_a_request_that_is_given_up_half_way_leaves_nothing_that_seems_to_wait() -> None:
    desk, _ = await stuck_desk("PRICE:C")
    await desk.client("bob", "PRICE:B")
    desk.connect("ann")
    asked = asyncio.ensure_future(desk.subscribe("ann", "PRICE:A", "PRICE:B", "PRICE:C"))
    await asyncio.sleep(0)
    assert len(desk.hub.channels()) == 2
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert [each.status for each in desk.subscriptions.of_user("default", "ann")] == ["ERROR"] * 3
    assert [each.name for each in desk.hub.channels()] == ["PRICE:B"], "bob hears it"
    await desk.service.remove_connection("bob")
    assert desk.hub.channels() == ()


async def test_what_another_connection_ended_meanwhile_may_fail_all_the_same() -> None:
    desk, broker = await stuck_desk("TRADES:A")
    broker.stuck = ""
    await desk.trade("A", 1)
    for name in ("desk", "phone"):
        desk.connect(name, trader("ann"))
    await desk.subscribe("desk", "TRADES:A", user="ann")
    broker.stuck = "TRADES:A"
    since = {"TRADES:A": Position("e1", 0)}
    asked = asyncio.ensure_future(
        desk.service.subscribe("phone", trader("ann"), ["TRADES:A"], since=since)
    )
    await asyncio.sleep(0)
    await desk.service.remove_connection("desk")
    broker.answered.set_exception(NO_ANSWER)
    reply = await asked
    assert reply["TRADES:A"]["error"]["code"] == "server.overloaded"  # type: ignore[index]
    assert desk.hub.channels() == ()


async def test_a_topic_that_begins_anew_while_another_is_asked_for_splices_nothing() -> None:
    desk, broker = await stuck_desk("PRICE:B")
    for number in (1, 2):
        await desk.trade("A", number)
    desk.connect("ann")
    since = {"TRADES:A": Position("e1", 1)}
    asked = asyncio.ensure_future(
        desk.service.subscribe("ann", trader("ann"), ["TRADES:A", "PRICE:B"], since=since)
    )
    await asyncio.sleep(0)
    desk.hub.reset(Reset("TRADES:A", Position("e2", 0), None))
    broker.answered.set_result(None)
    told = (await asked)["TRADES:A"]
    assert (told["epoch"], told["seq"]) == ("e2", 0)
    assert (told["recovered"], told["missed"], told["snapshot"]) == (False, [], None)
