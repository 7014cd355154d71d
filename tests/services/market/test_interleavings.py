"""Subscribing, coming back, leaving and publishing at once, over a broker that takes its time."""

import asyncio
import random
from functools import partial
from typing import Any

import orjson
import pytest

from server.brokers import MemoryBroker
from server.core.log.entries import Position
from server.delivery import FreshnessConfig
from server.services import PublishingConfig, PublishingService
from tests.kit.rigs.market import MarketRig, trader
from tests.kit.rigs.slow_broker import SlowBroker

SEEDS = range(250)
QUIET = FreshnessConfig(heartbeat_seconds=0)


async def held_desk() -> tuple[MarketRig, SlowBroker]:
    """A market over a broker that can be held."""
    desk = MarketRig(freshness=QUIET, broker=SlowBroker)
    broker = desk.broker
    assert isinstance(broker, SlowBroker)
    await broker.start(desk.hub.deliver)
    return desk, broker


class Reader:
    """A client of one topic that checks what it is told."""

    def __init__(self, desk: MarketRig, name: str, topic: str) -> None:
        self.name, self.topic = name, topic
        self._desk = desk
        self._link = desk.connect(name)
        self.reply: dict[str, Any] = {}

    async def subscribe(self, seen: Position | None = None) -> None:
        since = None if seen is None else {self.topic: seen}
        replies = await self._desk.service.subscribe(
            self.name, trader(self.name), [self.topic], since=since
        )
        self.reply = orjson.loads(orjson.dumps(replies))[self.topic]
        # Events that came before belong to an earlier subscription.
        self._link.written.clear()

    async def unsubscribe(self) -> None:
        await self._desk.service.unsubscribe(self.name, trader(self.name), [self.topic])

    def last_seq(self) -> int:
        """The last message that it has; each followed on the one before."""
        place: int = self.reply["seq"]
        for message in self._link.messages():
            if message.get("type") == "update":
                assert (message["prev"], message["seq"]) == (place, place + 1), self.reply
                place = message["seq"]
        return place


@pytest.mark.parametrize("block", range(5))
async def test_whoever_comes_back_gets_each_message_once_at_any_interleaving(block: int) -> None:
    for seed in SEEDS[block * 50 : block * 50 + 50]:
        desk, broker = await held_desk()
        for number in range(1, 4):
            await desk.trade("A", number)
        topic = "TRADES:A"
        readers = [Reader(desk, name, topic) for name in ("ann", "bob", "carl", "dora")]
        ann, bob, carl, dora = readers

        async def publish(first: int, desk: MarketRig = desk) -> None:
            for number in range(first, first + 4):
                await desk.trade("A", number)

        async def come_and_go(reader: Reader = dora) -> None:
            await reader.subscribe()
            await reader.unsubscribe()
            await reader.subscribe(Position("e1", 3))

        results = await broker.interleave(
            [
                ann.subscribe(Position("e1", 1)),
                publish(10),
                bob.subscribe(Position("e1", 3)),
                carl.subscribe(),
                come_and_go(),
            ],
            random.Random(seed),
        )
        desk.settle()
        assert results == [None] * 5
        for reader, seen in ((ann, 1), (bob, 3), (dora, 3)):
            reply = reader.reply
            assert reply["recovered"] is True, (seed, reader.name)
            missed = [each["seq"] for each in reply["missed"]]
            assert missed == list(range(seen + 1, reply["seq"] + 1)), (seed, reader.name)
        assert [each.last_seq() for each in readers] == [7] * 4, seed


async def test_a_channel_that_was_let_go_and_taken_up_at_once_is_still_heard() -> None:
    for seed in SEEDS:
        desk, broker = await held_desk()
        ann, bob = (Reader(desk, name, "PRICE:A") for name in ("ann", "bob"))
        await ann.subscribe()

        await broker.interleave([ann.unsubscribe(), bob.subscribe()], random.Random(seed))
        await broker.interleave([desk.price("A")], random.Random(seed))
        desk.settle()
        assert bob.last_seq() == 1, seed
        await bob.unsubscribe()
        assert not broker._watched, seed


async def test_a_subscriber_who_is_gone_before_the_answer_leaves_nothing() -> None:
    for seed in SEEDS:
        desk, broker = await held_desk()
        ann = Reader(desk, "ann", "PRICE:A")
        await broker.interleave(
            [ann.subscribe(), desk.service.remove_connection("ann")], random.Random(seed)
        )
        assert not broker._watched
        assert not desk.hub.channels()
        assert not desk.hub._opening


async def test_one_that_is_cancelled_while_it_waits_hands_its_turn_on() -> None:
    for seed in SEEDS:
        desk, broker = await held_desk()
        ann, bob = (Reader(desk, name, "PRICE:A") for name in ("ann", "bob"))
        first = asyncio.ensure_future(ann.subscribe())

        async def give_up(task: "asyncio.Future[None]" = first, seed: int = seed) -> None:
            for _ in range(seed % 30):
                await asyncio.sleep(0)
            task.cancel()

        await broker.interleave([give_up(), bob.subscribe()], random.Random(seed))
        await broker.interleave([desk.price("A")], random.Random(seed))
        desk.settle()
        assert bob.last_seq() == 1, seed
        await asyncio.wait([first])


# --- books


def levels(body: dict[str, Any]) -> dict[str, str]:
    return {price: quantity for side in ("bids", "asks") for price, quantity in body[side]}


async def test_a_book_that_several_nodes_publish_is_what_all_of_them_said() -> None:
    for seed in SEEDS[:120]:
        desk, broker = await held_desk()
        other = PublishingService(PublishingConfig(), broker, desk.clock)
        ann = await desk.client("ann", "ORDERBOOK:A")

        async def publish(service: PublishingService, price: int) -> None:
            for quantity in ("1", "2"):
                bids = [[str(price), quantity]]
                await service.publish("ORDERBOOK:A", {"bids": bids, "asks": []})

        calls = [publish(desk.publishing, price) for price in (1, 2)]
        calls += [publish(other, price) for price in (3, 4)]
        assert await broker.interleave(calls, random.Random(seed)) == [None] * 4
        desk.settle()
        told: dict[str, str] = {}
        for message in ann.messages("orderbook"):
            told |= levels(message["data"])
        latest = await broker.latest("ORDERBOOK:A")
        assert latest is not None
        assert latest.position.seq == 8
        assert levels(orjson.loads(latest.data)) == told == dict.fromkeys("1234", "2"), seed


async def test_overlapping_publishes_of_which_some_fail_leave_the_book_as_it_was_told() -> None:
    for seed in SEEDS[:120]:
        desk, broker = await held_desk()
        await desk.book("A", [("1", "1")], [("9", "1")], "snapshot")
        choice = random.Random(seed)
        original = broker.publish

        async def publish(
            *args: Any, original: Any = original, choice: random.Random = choice, **options: Any
        ) -> Any:
            if choice.random() < 0.4:
                await options.pop("hold")()
                raise ConnectionError
            options.pop("hold")
            return await original(*args, **options)

        broker.publish = partial(publish, hold=broker._wait_turn)  # type: ignore[method-assign]
        calls = [desk.book("A", [("2", str(n)), (str(n), "1")], []) for n in range(3, 8)]
        results = await broker.interleave(calls, choice)
        broker.publish = original  # type: ignore[method-assign]
        expected = {"1": "1", "9": "1"}
        for number, result in zip(range(3, 8), results, strict=True):
            if isinstance(result, Position):
                expected |= {"2": str(number), str(number): "1"}
        latest = await broker.latest("ORDERBOOK:A")
        assert latest is not None
        assert levels(orjson.loads(latest.data)) == expected, seed
        # What stands is what the next change is judged by.
        await desk.book("A", [(price, "0") for price in expected if price != "9"], [("9", "0")])
        assert levels(orjson.loads((await broker.latest("ORDERBOOK:A")).data)) == {}  # type: ignore[union-attr]


class SlowForB(MemoryBroker):
    """Takes its time for one topic, until it is let go."""

    released: asyncio.Event

    async def watch(self, channel: str) -> None:
        if channel.endswith("B"):
            await self.released.wait()
        await super().watch(channel)


async def test_no_message_comes_before_the_answer_however_long_another_topic_takes() -> None:
    desk = MarketRig(freshness=QUIET, broker=SlowForB)
    broker = desk.broker
    assert isinstance(broker, SlowForB)
    broker.released = asyncio.Event()
    await broker.start(desk.hub.deliver)
    await desk.price("A", "1.01")
    link = desk.connect("ann")
    asking = asyncio.create_task(desk.subscribe("ann", "PRICE:A", "PRICE:B", "PRICE:C"))
    await asyncio.sleep(0)
    assert desk.hub.topic_count == 1, "the first is followed, and the second asked for"
    await desk.price("A", "1.02")
    desk.settle()
    assert link.messages() == []
    broker.released.set()
    replies = orjson.loads(orjson.dumps(await asking))
    assert replies["PRICE:A"]["snapshot"]["data"]["last"] == "1.02"
    assert [each["status"] for each in replies.values()] == ["CONNECTED"] * 3
    desk.settle()
    assert link.messages() == []


async def test_a_topic_stays_while_another_is_waited_for_though_its_last_listener_goes() -> None:
    desk = MarketRig(freshness=QUIET, broker=SlowForB)
    broker = desk.broker
    assert isinstance(broker, SlowForB)
    broker.released = asyncio.Event()
    await broker.start(desk.hub.deliver)
    await desk.client("bob", "PRICE:A")
    link = desk.connect("ann")
    asking = asyncio.create_task(desk.subscribe("ann", "PRICE:A", "PRICE:B"))
    await asyncio.sleep(0)
    await desk.service.unsubscribe("bob", trader("bob"), ["PRICE:A"])
    broker.released.set()
    await asking
    await desk.price("A", "1.02")
    desk.settle()
    assert [message["data"]["last"] for message in link.messages("price")] == ["1.02"]
    await desk.service.remove_connection("ann")
    assert desk.hub.topic_count == 0
