"""Tests the supervision of a feed: restarts, stale topics, and the events about it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

import pytest

from server.core.counters import Counters
from server.delivery import DeliveryConfig
from server.ports import Publishing
from server.services import Demand, FeedEvent, FeedState, FeedSupervisor, LocalDemand
from server.tasks import TaskOwner
from tests.kit.clock import START
from tests.kit.rigs.market import PRICE, STALE, MarketRig, trader
from tests.kit.virtual_loop import run

Step = Callable[[Publishing], Coroutine[object, object, None]]


class ScriptedFeed:
    """Runs one step each time it is started, and publishes nothing after the last one."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.runs = 0

    async def run(self, publishing: Publishing) -> None:
        self.runs += 1
        if self._steps:
            await self._steps.pop(0)(publishing)
        else:
            await asyncio.Event().wait()


class FeedRig:
    """A feed and its supervisor in a market without sockets."""

    def __init__(self, market: MarketRig, feed: ScriptedFeed, silent_seconds: float = 0) -> None:
        self.market = market
        self.events: list[FeedEvent] = []
        self.tasks = TaskOwner(Counters())
        local = LocalDemand(market.subscriptions, market.patterns)

        async def ask() -> frozenset[str]:
            return local.names()[1]

        self.feed = FeedSupervisor(
            "exchange",
            feed,
            market.publishing,
            market.instruments,
            market.freshness,
            market.clock,
            self.tasks,
            demand=Demand(ask, market.instruments.table, market.clock),
            silent_seconds=silent_seconds,
            on_event=self.events.append,
        )

    @staticmethod
    async def create(feed: ScriptedFeed, silent_seconds: float = 0) -> "FeedRig":
        market = await MarketRig.create(DeliveryConfig(stalled_seconds=0), STALE)
        rig = FeedRig(market, feed, silent_seconds)
        rig.feed.start()
        return rig

    async def turn(self) -> None:
        """Let the feed run until it waits, then run the timers."""
        for _ in range(5):
            await asyncio.sleep(0)
        self.feed.tick()
        self.market.settle()

    def states(self) -> list[tuple[str, str]]:
        return [(event.type, event.reason) for event in self.events]


async def publish_one(publishing: Publishing) -> None:
    await publishing.publish("PRICE:A", PRICE)
    await asyncio.Event().wait()


async def publish_and_fail(publishing: Publishing) -> None:
    await publishing.publish("PRICE:A", PRICE)
    await publishing.publish(
        "TRADES:A", {"trades": [{"id": 1, "price": "1", "qty": "1", "side": "buy", "ts": 1}]}
    )
    await asyncio.sleep(1)
    raise ConnectionError("the exchange is down")


async def publish_and_return(publishing: Publishing) -> None:
    await publishing.publish("PRICE:A", PRICE)
    await asyncio.sleep(1)


def test_topics_of_a_failed_feed_are_stale_at_once() -> None:
    async def main() -> None:
        rig = await FeedRig.create(ScriptedFeed(publish_and_fail))
        await rig.market.price("B")
        ann = await rig.market.client("ann", "PRICE:A", "TRADES:A", "PRICE:B")
        await rig.turn()
        assert rig.feed.state is FeedState.LIVE
        await asyncio.sleep(1)
        await rig.turn()
        since_ms = int(START * 1000)
        assert ann.messages("status") == [
            {"stream": stream, "symbol": "A", "state": "STALE", "since_ms": since_ms}
            for stream in ("PRICE", "TRADES")
        ], "a topic of another publisher is not stale, and trades have no timeout"
        assert rig.states() == [("feed.live", ""), ("feed.stale", "the exchange is down")]
        await rig.feed.stop()

    run(main())


def test_restarted_feed_turns_its_topics_live() -> None:
    async def main() -> None:
        feed = ScriptedFeed(publish_and_fail, publish_one)
        rig = await FeedRig.create(feed)
        ann = await rig.market.client("ann", "PRICE:A", "TRADES:A")
        await rig.turn()
        await asyncio.sleep(1)
        await rig.turn()
        assert rig.tasks.failing == {"floorcast-feed"}
        await asyncio.sleep(1)
        await rig.turn()
        assert (feed.runs, rig.feed.failures, rig.feed.state) == (2, 1, FeedState.LIVE)
        assert [(each["stream"], each["state"]) for each in ann.messages("status")] == [
            ("PRICE", "STALE"),
            ("TRADES", "STALE"),
            ("PRICE", "LIVE"),
        ], "a topic is live with its own next message"
        assert [each for each, _ in rig.states()] == ["feed.live", "feed.stale", "feed.live"]
        await rig.feed.stop()

    run(main())


def test_topic_opened_while_its_feed_is_down_is_stale() -> None:
    async def main() -> None:
        rig = await FeedRig.create(ScriptedFeed(publish_and_fail))
        await rig.turn()
        await asyncio.sleep(1)
        await rig.turn()
        rig.market.clock.advance(2)
        ann = await rig.market.client("ann", "TRADES:A")
        rig.market.settle()
        assert [each["state"] for each in ann.messages("status")] == ["STALE"]
        await rig.market.trade("A", 2)
        bob = await rig.market.client("bob", "PRICE:A")
        await rig.market.service.unsubscribe("ann", trader("ann"), ["TRADES:A"])
        await rig.market.subscribe("bob", "TRADES:A")
        rig.market.settle()
        assert [each["stream"] for each in bob.messages("status")] == ["PRICE"], (
            "another publisher has made the trades live"
        )
        await rig.feed.stop()

    run(main())


def test_returning_broker_makes_no_topic_of_a_dead_feed_live() -> None:
    async def main() -> None:
        rig = await FeedRig.create(ScriptedFeed(publish_and_fail))
        await rig.turn()
        ann = await rig.market.client("ann", "TRADES:A")
        await asyncio.sleep(1)
        await rig.turn()
        rig.market.freshness.set_broker_up(False)
        rig.market.freshness.set_broker_up(True)
        assert [each["state"] for each in ann.messages("status")] == ["STALE"]
        assert rig.market.freshness.stale_count() == 1
        await rig.feed.stop()

    run(main())


def test_silent_feed_is_restarted() -> None:
    async def main() -> None:
        feed = ScriptedFeed(publish_one, publish_one)
        rig = await FeedRig.create(feed, silent_seconds=30)
        await rig.turn()
        rig.market.clock.advance(29)
        await rig.turn()
        assert rig.feed.is_live
        rig.market.clock.advance(1)
        await rig.turn()
        await asyncio.sleep(0.1)
        assert rig.states()[1:] == [("feed.stale", "published nothing for 30 s")]
        await rig.turn()
        assert (feed.runs, rig.feed.state) == (2, FeedState.LIVE)
        await rig.feed.stop()

    run(main())


def test_feed_that_nobody_listens_to_is_live_and_may_be_silent() -> None:
    async def follow(publishing: Publishing) -> None:
        async for _ in publishing.demand(grace_seconds=0):
            pass

    async def main() -> None:
        rig = await FeedRig.create(ScriptedFeed(follow), silent_seconds=30)
        await rig.turn()
        rig.market.clock.advance(60)
        await rig.turn()
        assert rig.feed.is_live
        await rig.market.client("ann", "PRICE:A")
        await asyncio.sleep(1)
        rig.market.clock.advance(30)
        await rig.turn()
        await asyncio.sleep(0.01)
        assert rig.feed.state is FeedState.STALE, "somebody listens, and it publishes nothing"
        await rig.feed.stop()

    run(main())


def test_feed_that_fails_repeatedly_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def fail(publishing: Publishing) -> None:
            raise ConnectionError

        rig = await FeedRig.create(ScriptedFeed(fail, fail, fail))
        await asyncio.sleep(1)
        assert rig.states() == [("feed.stale", "ConnectionError")]
        assert rig.feed.failures == 3
        await rig.feed.stop()

    run(main())
    stale = [each for each in caplog.records if each.getMessage().startswith("feed is stale")]
    assert [each.levelno for each in stale] == [logging.WARNING]


def test_topics_of_an_ended_feed_are_stale_and_it_is_not_run_again() -> None:
    async def main() -> None:
        feed = ScriptedFeed(publish_and_return)
        rig = await FeedRig.create(feed)
        ann = await rig.market.client("ann", "PRICE:A")
        await asyncio.sleep(60)
        await rig.turn()
        assert (feed.runs, rig.feed.state) == (1, FeedState.ENDED)
        assert [each["state"] for each in ann.messages("status")] == ["STALE"]
        assert rig.states()[-1] == ("feed.stale", "the feed has ended")
        await rig.feed.stop()

    run(main())


def test_stopped_feed_leaves_its_topics_live() -> None:
    async def main() -> None:
        rig = await FeedRig.create(ScriptedFeed(publish_one))
        ann = await rig.market.client("ann", "PRICE:A")
        await rig.turn()
        await rig.feed.stop()
        assert (rig.feed.state, ann.messages("status")) == (FeedState.IDLE, [])
        assert [each for each, _ in rig.states()] == ["feed.live"]

    run(main())


def test_feed_marks_one_topic_stale_until_its_next_message() -> None:
    async def main() -> None:
        wrong = asyncio.Event()

        async def publish_and_doubt(publishing: Publishing) -> None:
            for symbol in "AB":
                await publishing.publish_book(symbol, [("1", "1")], [("2", "1")])
            await wrong.wait()
            publishing.set_stale(["ORDERBOOK:A"], "checksum")
            await asyncio.sleep(1)
            await publishing.publish_book("A", [("1", "1")], [("2", "1")])
            await asyncio.Event().wait()

        rig = await FeedRig.create(ScriptedFeed(publish_and_doubt))
        await rig.turn()
        ann = await rig.market.client("ann", "ORDERBOOK:A", "ORDERBOOK:B")
        rig.market.clock.advance(1)
        wrong.set()
        await rig.turn()
        bob = await rig.market.client("bob", "ORDERBOOK:A")
        await rig.turn()
        states = [(each["symbol"], each["state"]) for each in ann.messages("status")]
        assert states == [("A", "STALE")]
        assert [each["state"] for each in bob.messages("status")] == ["STALE"]
        await asyncio.sleep(2)
        rig.market.clock.advance(1)
        await rig.turn()
        assert [each["state"] for each in ann.messages("status")] == ["STALE", "LIVE"]
        [message] = ann.messages("orderbook")
        assert message["type"] == "snapshot", "the same book is published whole"
        assert rig.states() == [("feed.live", "")], "the feed itself went on"
        await rig.feed.stop()

    run(main())
