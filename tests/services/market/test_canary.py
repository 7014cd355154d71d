"""Tests the canary: it watches what the hub sends, finds faults, and keeps to its budget."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from unittest.mock import patch

import pytest

from server.core.log.entries import Entry
from server.services import Canary, CanaryConfig
from server.tasks import TaskOwner
from tests.kit.clock import RunningClock
from tests.kit.rigs.market import MarketRig
from tests.kit.virtual_loop import run


class Immediate(random.Random):
    """Chooses the interval 0."""

    def choice(self, seq: Any) -> Any:
        return seq[0]


class CanaryRig:
    """A canary in a market without sockets."""

    def __init__(self, market: MarketRig, rng: random.Random, topics: int = 4) -> None:
        self.market = market
        self.canary = Canary(
            CanaryConfig(topics),
            market.hub,
            market.topics,
            market.publishing.topics,
            market.clock,
            market.counters,
            TaskOwner(market.counters),
            rng,
        )

    def found(self) -> dict[str, int]:
        """The faults by their counter."""
        names = ("gaps", "duplicates", "reorders", "checksum_errors")
        counts = {name: self.market.counters.total(f"canary.{name}") for name in names}
        return {name: count for name, count in counts.items() if count}

    @property
    def checked(self) -> int:
        return self.market.counters.total("canary.messages")

    def replace_entries(self, replace: Callable[[Entry], Sequence[Entry]]) -> None:
        """Deliver other entries to the hub than those that are published."""
        deliver = self.market.hub.deliver

        def delivered(entry: Entry) -> None:
            for each in replace(entry):
                deliver(each)

        self.market.broker._deliver = delivered

    async def publish(self, count: int) -> None:
        """Publish to all three topics, and let time pass after each message."""
        for number in range(1, count + 1):
            await self.market.price("A", number)
            await self.market.trade("A", number)
            levels = [("2", "1"), ("3", str(number % 3))]
            await self.market.book("A", [("1", str(number))], levels)
            self.market.settle()
            self.market.pass_time(0.25)
            self.market.settle()
            await asyncio.sleep(0.25)


TOPICS = ("PRICE:A", "TRADES:A", "ORDERBOOK:A")


def watched(
    work: Callable[[CanaryRig], Coroutine[object, object, None]], rng: random.Random
) -> CanaryRig:
    """Run the work while the canary watches the topics."""

    async def main() -> CanaryRig:
        rig = CanaryRig(await MarketRig.create(), rng)
        await rig.market.book("A", [("1", "1")], [("2", "1")], kind="snapshot")
        watching = asyncio.ensure_future(rig.canary.watch(TOPICS))
        await asyncio.sleep(0)
        assert rig.canary.topic_count == len(TOPICS)
        await work(rig)
        await watching
        assert rig.market.hub.topic_count == rig.canary.topic_count == 0
        assert "(canary)" not in rig.market.hub
        return rig

    return run(main())


@pytest.mark.parametrize("seed", range(8))
def test_canary_finds_nothing_in_a_healthy_market(seed: int) -> None:
    rig = watched(lambda rig: rig.publish(20), random.Random(seed))
    assert rig.found() == {}
    assert rig.checked >= 20
    ages = rig.market.counters.histogram("canary.age")
    assert sum(ages.counts) == rig.checked
    assert 0 <= ages.sum / rig.checked < 1


def lost(entry: Entry) -> Sequence[Entry]:
    return [] if entry.channel == "PRICE:A" and entry.position.seq == 3 else [entry]


def corrupt(entry: Entry) -> Sequence[Entry]:
    if entry.channel == "ORDERBOOK:A" and entry.position.seq == 3:
        broken = entry.data.replace(b'"checksum":', b'"checksum":1')
        return [Entry(entry.channel, entry.position, entry.ts_ms, broken, entry.kind)]
    return [entry]


@pytest.mark.parametrize(
    ("replace", "found"), [(lost, {"gaps": 1}), (corrupt, {"checksum_errors": 1})]
)
def test_canary_finds_what_clients_are_sent_wrong(
    replace: Callable[[Entry], Sequence[Entry]],
    found: dict[str, int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(rig: CanaryRig) -> None:
        rig.replace_entries(replace)
        await rig.publish(6)

    # The hub trusts its broker: it numbers and links what it gets.
    rig = watched(work, Immediate())
    assert rig.found() == found
    [line] = [each for each in caplog.records if "canary found" in each.getMessage()]
    assert vars(line)["seq"] in (3, 4)


def test_frames_written_twice_are_found() -> None:
    async def work(rig: CanaryRig) -> None:
        client = rig.market.hub._registry.clients["(canary)"]
        write = client.link.write
        with patch.object(client.link, "write", lambda frames: (write(frames), write(frames))):
            await rig.publish(2)

    rig = watched(work, Immediate())
    # The three topics of one turn are one write: the second copy of it repeats each message.
    assert rig.found() == {"duplicates": 6}


def test_round_of_busy_topics_ends_early_and_costs_its_share_of_time() -> None:
    async def main() -> None:
        market = await MarketRig.create()
        rig = CanaryRig(market, Immediate())
        # Each look at the clock takes 2 ms, as if the messages were slow to check.
        clock = RunningClock()
        rig.canary._clock = clock
        ticks = iter(range(1_000_000))
        with patch.object(clock, "monotonic", lambda: next(ticks) * 0.002):
            loop = asyncio.get_running_loop()
            watching = asyncio.ensure_future(rig.canary.watch(["PRICE:A"]))
            await asyncio.sleep(0)
            for number in range(20):
                await market.price("A", number)
                market.settle()
            began = loop.time()
            await watching
        assert market.counters.total("canary.cut_short") == 1
        assert rig.checked == 20
        # 20 messages of 2 ms each at a share of 0.5 %.
        assert loop.time() - began > 20 * 0.002 / 0.005

    run(main())


def test_canary_prefers_topics_that_clients_watch() -> None:
    async def main() -> None:
        market = await MarketRig.create()
        rig = CanaryRig(market, random.Random(1), topics=3)
        assert rig.canary._choose() == []
        for symbol in "ABCD":
            await market.price(symbol)
        await market.publishing.publish(
            "ORDER_UPDATES", {"order_id": "1"}, user="ann", org="default"
        )
        assert len(rig.canary._choose()) == 3
        await market.client("ann", "PRICE:C", "ORDER_UPDATES")
        assert rig.canary._choose() == ["PRICE:C"]

    run(main())
