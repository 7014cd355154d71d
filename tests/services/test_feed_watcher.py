"""Tests which channels a node announces, and which of a dead node's are marked stale."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import orjson

from server.brokers import MemoryCluster
from server.core.counters import Counters
from server.delivery import DeliveryConfig
from server.ports import NodeFeeds, Publishing
from server.services import ClusterQueries, FeedAnnouncer, FeedEvent, FeedSupervisor, FeedWatcher
from server.tasks import TaskOwner
from tests.kit.rigs.market import PRICE, STALE, MarketRig
from tests.kit.virtual_loop import run

MAX_CHANNELS = 10_000


class QueueFeed:
    """Publishes what the test puts, and fails on an empty topic."""

    def __init__(self) -> None:
        self.topics: asyncio.Queue[str] = asyncio.Queue()

    async def run(self, publishing: Publishing) -> None:
        while topic := await self.topics.get():
            await publishing.publish(topic, PRICE)
        raise ConnectionError("the exchange is down")


class Watch:
    """A `FeedWatch` that keeps what is announced, and reports what the test wants."""

    def __init__(self) -> None:
        self.announced: list[Mapping[str, Sequence[str]]] = []

    def start(
        self,
        on_dead: Callable[[NodeFeeds, Sequence[NodeFeeds]], None],
        on_rejoined: Callable[[], None],
    ) -> None:
        self.on_dead = on_dead
        self.on_rejoined = on_rejoined

    def announce(self, feeds: Mapping[str, Sequence[str]]) -> None:
        self.announced.append(feeds)


class WatcherRig:
    """A feed of one node, and what the node announces and asks of all."""

    def __init__(self, market: MarketRig) -> None:
        self.market = market
        self.source = QueueFeed()
        self.watch = Watch()
        self.marked: list[tuple[str, str, list[str] | None]] = []
        tasks = TaskOwner(Counters())
        self.feed = FeedSupervisor(
            "exchange",
            self.source,
            market.publishing,
            market.instruments,
            market.freshness,
            market.clock,
            tasks,
        )
        self.cluster = MemoryCluster()
        announcer = FeedAnnouncer("here", ClusterQueries(self.cluster), tasks)
        self.events: list[FeedEvent] = []
        self.watcher = FeedWatcher(
            self.watch, [self.feed], announcer, market.clock, self.events.append
        )

    async def answer(self, message: bytes) -> bytes:
        question = orjson.loads(message)
        self.marked.append((question["node"], question["feed"], question["channels"]))
        return b"0"

    async def turn(self, *topics: str) -> None:
        """Let the feed publish these topics, and run the timers."""
        for each in topics:
            self.source.topics.put_nowait(each)
        for _ in range(10):
            await asyncio.sleep(0)
        self.feed.tick()
        self.watcher.tick()


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[WatcherRig]:
    rig = WatcherRig(await MarketRig.create(DeliveryConfig(stalled_seconds=0), STALE))
    await rig.cluster.start(rig.answer)
    rig.watcher.start()
    rig.feed.start()
    yield rig
    await rig.feed.stop()


def test_channels_are_announced_on_change_and_not_more_than_once_a_second() -> None:
    async def main() -> None:
        async with running() as rig:
            await rig.turn()
            assert rig.watch.announced == []
            await rig.turn("PRICE:A")
            await rig.turn("PRICE:B")
            await rig.turn("PRICE:C")
            assert rig.watch.announced == [{"exchange": ["PRICE:A"]}]
            rig.market.clock.advance(1)
            await rig.turn("PRICE:A")
            assert rig.watch.announced[1:] == [{"exchange": ["PRICE:A", "PRICE:B", "PRICE:C"]}]
            rig.market.clock.advance(1)
            await rig.turn("PRICE:A")
            assert len(rig.watch.announced) == 2

    run(main())


def test_failed_feed_is_not_announced() -> None:
    async def main() -> None:
        async with running() as rig:
            await rig.turn("PRICE:A")
            rig.market.clock.advance(1)
            await rig.turn("")
            assert rig.watch.announced == [{"exchange": ["PRICE:A"]}, {}]

    run(main())


def test_announcement_is_bounded() -> None:
    async def main() -> None:
        async with running() as rig:
            await rig.turn("PRICE:A")
            channels = rig.feed.publisher._channels
            channels.update(dict.fromkeys(map(str, range(MAX_CHANNELS))))
            rig.market.clock.advance(1)
            await rig.turn()
            assert len(rig.watch.announced[1]["exchange"]) == MAX_CHANNELS
            channels["one more"] = None
            rig.market.clock.advance(1)
            await rig.turn()
            assert len(rig.watch.announced) == 2

    run(main())


def test_channels_that_living_nodes_publish_are_not_marked() -> None:
    async def main() -> None:
        async with running() as rig:
            dead = NodeFeeds("dead", {"a": ["1", "2", "3"], "b": ["4"]})
            rig.watch.on_dead(dead, [NodeFeeds("x", {"a": ["1"], "c": ["4"]}), NodeFeeds("y", {})])
            await rig.turn()
            assert rig.marked == [("dead", "a", ["2", "3"])]
            # The feed `b` has other publishers for all of its channels.
            assert rig.events == [FeedEvent("a", False, 2, "its node dead has died")]

    run(main())


def test_large_feed_of_two_nodes_is_not_marked() -> None:
    async def main() -> None:
        async with running() as rig:
            living = NodeFeeds("x", {"a": [str(each) for each in range(MAX_CHANNELS)]})
            rig.watch.on_dead(NodeFeeds("dead", {"a": ["other"], "b": ["other"]}), [living])
            await rig.turn()
            assert rig.marked == [("dead", "b", ["other"])]

    run(main())


def test_node_that_was_taken_for_dead_marks_its_feed_live() -> None:
    async def main() -> None:
        async with running() as rig:
            rig.watch.on_rejoined()
            await rig.turn()
            assert rig.marked == []
            assert rig.events == []
            await rig.turn("PRICE:A")
            rig.watch.on_rejoined()
            await rig.turn()
            assert rig.marked == [("here", "exchange", None)]
            assert rig.events == [FeedEvent("exchange", True, 1)]

    run(main())
