"""A feed follows what somebody listens to: topics, views and patterns, on all nodes."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import orjson
import pytest

from server.ports import Answers
from server.services import ClusterDemand, ClusterQueries, Demand, LocalDemand
from server.services.market.demand import POLL_SECONDS
from tests.kit.rigs.market import MarketRig, trader

Step = Callable[[], Coroutine[Any, Any, object]]


class Ended(Exception):
    """The steps of a test are over."""


async def follow(
    market: MarketRig,
    *steps: Step,
    symbols: Iterable[str] | None = None,
    grace_seconds: float = 0.0,
) -> list[set[str]]:
    """What a feed gets while these steps are made, one before each further poll."""
    remaining = list(steps)
    local = LocalDemand(market.subscriptions, market.patterns)

    async def ask() -> frozenset[str]:
        return local.names()[1]

    async def sleep(seconds: float) -> None:
        market.clock.advance(seconds)
        if not remaining:
            raise Ended
        await remaining.pop(0)()

    demand = Demand(ask, market.instruments.table, market.clock, sleep=sleep)
    own = None if symbols is None else frozenset(symbols)
    found: list[set[str]] = []

    async def collect() -> None:
        async for topics in demand.follow(own, grace_seconds):
            found.append(set(topics))  # noqa: PERF401 - it ends by an exception

    with pytest.raises(Ended):
        await collect()
    return found


async def nothing() -> None:
    """A step without a change."""


async def test_feed_gets_the_wanted_topics_at_once_and_at_each_change() -> None:
    market = await MarketRig.create()
    await market.client("ann", "PRICE:A")
    found = await follow(
        market,
        nothing,
        lambda: market.client("bob", "PRICE:A", "TRADES:B"),
        lambda: market.service.unsubscribe("ann", trader("ann"), ["PRICE:A"]),
        lambda: market.service.unsubscribe("bob", trader("bob"), ["PRICE:A"]),
        nothing,
    )
    assert found == [{"PRICE:A"}, {"PRICE:A", "TRADES:B"}, {"TRADES:B"}]


async def test_feed_without_listeners_gets_an_empty_set() -> None:
    market = await MarketRig.create()
    assert await follow(market, nothing) == [set()]


async def test_topic_stays_wanted_for_the_grace_time() -> None:
    market = await MarketRig.create()
    await market.client("ann", "PRICE:A", "PRICE:B")

    async def leave() -> None:
        await market.service.unsubscribe("ann", trader("ann"), ["PRICE:A", "PRICE:B"])

    async def back() -> None:
        await market.subscribe("ann", "PRICE:B")

    found = await follow(market, leave, back, nothing, nothing, grace_seconds=2 * POLL_SECONDS)
    assert found == [{"PRICE:A", "PRICE:B"}, {"PRICE:B"}], "B was wanted again in time"


async def test_view_counts_as_its_source() -> None:
    market = await MarketRig.create()
    await market.client("ann", "ORDERBOOK:A@10", "ORDERBOOK:A@10/0.5", "TRADES:A@1m")
    assert await follow(market) == [{"ORDERBOOK:A", "TRADES:A"}]


async def test_private_topic_is_no_demand() -> None:
    market = await MarketRig.create()
    await market.client("ann", "USER_DATA", "PRICE:A")
    assert await follow(market) == [{"PRICE:A"}]


async def test_parked_connection_still_wants_its_topics() -> None:
    market = await MarketRig.create()
    market.connect("ann", numbered=True)
    await market.subscribe("ann", "PRICE:A")
    market.park("ann")
    assert await follow(market) == [{"PRICE:A"}]


async def test_pattern_wants_the_instruments_that_match_now_and_later() -> None:
    market = await MarketRig.create()
    await market.kept.start()
    for symbol in ("BTC", "ETH"):
        await market.instruments.put(symbol, {"tick_size": "0.1"})
    await market.client("ann", "ORDERBOOK:B*@10")
    found = await follow(
        market,
        lambda: market.instruments.put("BNB", {"tick_size": "0.1"}),
        lambda: market.instruments.put("XRP", {"tick_size": "0.1"}),
        lambda: market.service.unsubscribe("ann", trader("ann"), ["ORDERBOOK:B*@10"]),
    )
    assert found == [{"ORDERBOOK:BTC"}, {"ORDERBOOK:BTC", "ORDERBOOK:BNB"}, set()]


async def test_feed_that_names_its_symbols_gets_no_others() -> None:
    market = await MarketRig.create()
    await market.kept.start()
    await market.instruments.put("BNB", {"tick_size": "0.1"})
    await market.client("ann", "TRADES:B*", "PRICE:BTC", "PRICE:ETH", "PRICE:BNB")
    found = await follow(market, symbols=["BTC", "ETH"])
    assert found == [{"TRADES:BTC", "PRICE:BTC", "PRICE:ETH"}]


# --- over all nodes


class ScriptedCluster:
    """Other nodes, whose answers the test gives."""

    node = "asking"

    def __init__(self) -> None:
        self.answers: Mapping[str, object] = {}
        self.missing: tuple[str, ...] = ()
        self.questions: list[dict[str, object]] = []

    async def start(self, answer: object) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def ask(self, question: bytes) -> Answers:
        self.questions.append(orjson.loads(question))
        return Answers(
            {name: orjson.dumps(each) for name, each in self.answers.items()}, self.missing
        )


def answer(node: str, version: int, *names: str) -> dict[str, object]:
    return {"node": node, "version": version, "names": list(names)}


async def test_demand_of_all_nodes_is_joined() -> None:
    cluster = ScriptedCluster()
    demand = ClusterDemand(ClusterQueries(cluster))
    cluster.answers = {
        "n1": answer("n1", 1, "PRICE:A"),
        "n2": answer("n2", 4, "PRICE:A", "PRICE:*"),
    }
    assert await demand.names() == {"PRICE:A", "PRICE:*"}
    # A node that knows its version was received names nothing again.
    cluster.answers = {
        "n1": {"node": "n1", "version": 1, "names": None},
        "n2": answer("n2", 5, "PRICE:B"),
    }
    assert await demand.names() == {"PRICE:A", "PRICE:B"}
    assert cluster.questions[1] == {"kind": "demand", "known": {"n1": 1, "n2": 4}}


async def test_node_that_hangs_still_wants_what_it_wanted() -> None:
    cluster = ScriptedCluster()
    demand = ClusterDemand(ClusterQueries(cluster))
    cluster.answers = {"n1": answer("n1", 1, "PRICE:A"), "n2": answer("n2", 1, "PRICE:B")}
    await demand.names()
    cluster.answers, cluster.missing = {"n1": answer("n1", 2, "PRICE:C")}, ("n2", "n3")
    assert await demand.names() == {"PRICE:B", "PRICE:C"}
    cluster.missing = ()
    assert await demand.names() == {"PRICE:C"}, "n2 is gone"
