"""Concurrent subscribing, recovery, leaving and publishing over a slow broker."""

import asyncio
import random
from functools import partial
from typing import Any

import orjson
import pytest

from server.brokers import MemoryBroker
from server.core.log.entries import Position
from server.services import FreshnessConfig, PublishingConfig, PublishingService
from tests.kit.rigs.market import MarketRig, trader
from tests.kit.rigs.slow_broker import SlowBroker

SEEDS = range(250)
QUIET = FreshnessConfig(heartbeat_seconds=0)


async def interleaved_market() -> tuple[MarketRig, SlowBroker]:
    """A market over a broker whose calls the test interleaves."""
    market = MarketRig(freshness=QUIET, broker=SlowBroker)
    broker = market.broker
    assert isinstance(broker, SlowBroker)
    await broker.start(market.hub.deliver)
    return market, broker


class Reader:
    """A client of one topic that validates its messages."""

    def __init__(self, market: MarketRig, name: str, topic: str) -> None:
        self.name, self.topic = name, topic
        self._market = market
        self._link = market.connect(name)
        self.reply: dict[str, Any] = {}

    async def subscribe(self, seen: Position | None = None) -> None:
        since = None if seen is None else {self.topic: seen}
        replies = await self._market.service.subscribe(
            self.name, trader(self.name), [self.topic], since=since
        )
        self.reply = orjson.loads(orjson.dumps(replies))[self.topic]
        # Earlier events belong to an earlier subscription.
        self._link.written.clear()

    async def unsubscribe(self) -> None:
        await self._market.service.unsubscribe(self.name, trader(self.name), [self.topic])

    def last_seq(self) -> int:
        """The `seq` of the last message; asserts that there is no gap."""
        last_seq: int = self.reply["seq"]
        for message in self._link.messages():
            if message.get("type") == "update":
                assert (message["prev"], message["seq"]) == (last_seq, last_seq + 1), self.reply
                last_seq = message["seq"]
        return last_seq


@pytest.mark.parametrize("block", range(5))
async def test_recovering_client_gets_each_message_once(block: int) -> None:
    for seed in SEEDS[block * 50 : block * 50 + 50]:
        market, broker = await interleaved_market()
        for number in range(1, 4):
            await market.trade("A", number)
        topic = "TRADES:A"
        readers = [Reader(market, name, topic) for name in ("ann", "bob", "carl", "dora")]
        ann, bob, carl, dora = readers

        async def publish(first: int, market: MarketRig = market) -> None:
            for number in range(first, first + 4):
                await market.trade("A", number)

        async def resubscribe(reader: Reader = dora) -> None:
            await reader.subscribe()
            await reader.unsubscribe()
            await reader.subscribe(Position("e1", 3))

        results = await broker.interleave(
            [
                ann.subscribe(Position("e1", 1)),
                publish(10),
                bob.subscribe(Position("e1", 3)),
                carl.subscribe(),
                resubscribe(),
            ],
            random.Random(seed),
        )
        market.settle()
        assert results == [None] * 5
        for reader, seen in ((ann, 1), (bob, 3), (dora, 3)):
            reply = reader.reply
            assert reply["recovered"] is True, (seed, reader.name)
            missed = [each["seq"] for each in reply["missed"]]
            assert missed == list(range(seen + 1, reply["seq"] + 1)), (seed, reader.name)
        assert [each.last_seq() for each in readers] == [7] * 4, seed


async def test_channel_reopened_during_its_release_still_delivers() -> None:
    for seed in SEEDS:
        market, broker = await interleaved_market()
        ann, bob = (Reader(market, name, "PRICE:A") for name in ("ann", "bob"))
        await ann.subscribe()

        await broker.interleave([ann.unsubscribe(), bob.subscribe()], random.Random(seed))
        await broker.interleave([market.price("A")], random.Random(seed))
        market.settle()
        assert bob.last_seq() == 1, seed
        await bob.unsubscribe()
        assert not broker._watched, seed


async def test_subscriber_gone_before_the_reply_leaves_no_state() -> None:
    for seed in SEEDS:
        market, broker = await interleaved_market()
        ann = Reader(market, "ann", "PRICE:A")
        await broker.interleave(
            [ann.subscribe(), market.service.remove_connection("ann")], random.Random(seed)
        )
        assert not broker._watched
        assert not market.hub.channels()
        assert not market.hub._opening


async def test_cancelled_subscriber_passes_its_lock_on() -> None:
    for seed in SEEDS:
        market, broker = await interleaved_market()
        ann, bob = (Reader(market, name, "PRICE:A") for name in ("ann", "bob"))
        first = asyncio.ensure_future(ann.subscribe())

        async def cancel(task: "asyncio.Future[None]" = first, seed: int = seed) -> None:
            for _ in range(seed % 30):
                await asyncio.sleep(0)
            task.cancel()

        await broker.interleave([cancel(), bob.subscribe()], random.Random(seed))
        await broker.interleave([market.price("A")], random.Random(seed))
        market.settle()
        assert bob.last_seq() == 1, seed
        await asyncio.wait([first])


# --- books


def levels(body: dict[str, Any]) -> dict[str, str]:
    return {price: quantity for side in ("bids", "asks") for price, quantity in body[side]}


async def test_book_of_several_publishers_has_all_their_changes() -> None:
    for seed in SEEDS[:120]:
        market, broker = await interleaved_market()
        other = PublishingService(PublishingConfig(), broker, market.clock)
        await market.publishing.publish("ORDERBOOK:A", {"bids": [], "asks": []}, kind="snapshot")
        ann = await market.client("ann", "ORDERBOOK:A")

        async def publish(service: PublishingService, price: int) -> None:
            for quantity in ("1", "2"):
                bids = [[str(price), quantity]]
                await service.publish("ORDERBOOK:A", {"bids": bids, "asks": []})

        calls = [publish(market.publishing, price) for price in (1, 2)]
        calls += [publish(other, price) for price in (3, 4)]
        assert await broker.interleave(calls, random.Random(seed)) == [None] * 4
        market.settle()
        received: dict[str, str] = {}
        for message in ann.messages("orderbook"):
            received |= levels(message["data"])
        latest = await broker.latest("ORDERBOOK:A")
        assert latest is not None
        assert latest.position.seq == 9
        assert levels(orjson.loads(latest.data)) == received == dict.fromkeys("1234", "2"), seed


async def test_failed_concurrent_changes_leave_the_book_consistent() -> None:
    for seed in SEEDS[:120]:
        market, broker = await interleaved_market()
        await market.book("A", [("1", "1")], [("9", "1")], "snapshot")
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
        calls = [market.book("A", [("2", str(n)), (str(n), "1")], []) for n in range(3, 8)]
        results = await broker.interleave(calls, choice)
        broker.publish = original  # type: ignore[method-assign]
        expected = {"1": "1", "9": "1"}
        for number, result in zip(range(3, 8), results, strict=True):
            if isinstance(result, Position):
                expected |= {"2": str(number), str(number): "1"}
        latest = await broker.latest("ORDERBOOK:A")
        assert latest is not None
        assert levels(orjson.loads(latest.data)) == expected, seed
        # The next change is validated against the stored book.
        await market.book("A", [(price, "0") for price in expected if price != "9"], [("9", "0")])
        assert levels(orjson.loads((await broker.latest("ORDERBOOK:A")).data)) == {}  # type: ignore[union-attr]


class SlowForB(MemoryBroker):
    """Blocks for one topic until released."""

    released: asyncio.Event

    async def watch(self, channel: str) -> None:
        if channel.endswith("B"):
            await self.released.wait()
        await super().watch(channel)


async def test_no_message_precedes_the_reply_despite_a_slow_topic() -> None:
    market = MarketRig(freshness=QUIET, broker=SlowForB)
    broker = market.broker
    assert isinstance(broker, SlowForB)
    broker.released = asyncio.Event()
    await broker.start(market.hub.deliver)
    await market.price("A", "1.01")
    link = market.connect("ann")
    pending = asyncio.create_task(market.subscribe("ann", "PRICE:A", "PRICE:B", "PRICE:C"))
    await asyncio.sleep(0)
    assert market.hub.topic_count == 1, "the first topic is open, the second is opening"
    await market.price("A", "1.02")
    market.settle()
    assert link.messages() == []
    broker.released.set()
    replies = orjson.loads(orjson.dumps(await pending))
    assert replies["PRICE:A"]["snapshot"]["data"]["last"] == "1.02"
    assert [each["status"] for each in replies.values()] == ["CONNECTED"] * 3
    market.settle()
    assert link.messages() == []


async def test_topic_stays_open_while_another_topic_is_opening() -> None:
    market = MarketRig(freshness=QUIET, broker=SlowForB)
    broker = market.broker
    assert isinstance(broker, SlowForB)
    broker.released = asyncio.Event()
    await broker.start(market.hub.deliver)
    await market.client("bob", "PRICE:A")
    link = market.connect("ann")
    pending = asyncio.create_task(market.subscribe("ann", "PRICE:A", "PRICE:B"))
    await asyncio.sleep(0)
    await market.service.unsubscribe("bob", trader("bob"), ["PRICE:A"])
    broker.released.set()
    await pending
    await market.price("A", "1.02")
    market.settle()
    assert [message["data"]["last"] for message in link.messages("price")] == ["1.02"]
    await market.service.remove_connection("ann")
    assert market.hub.topic_count == 0
