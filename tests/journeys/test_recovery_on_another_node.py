"""Cut off on one node and back on another: the same connection, and nothing lost or leaked."""

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client_sdk.contract import ErrorCode, Scope
from server.brokers import RedisBroker
from server.core.errors import FloorcastError
from server.core.log.entries import Position
from server.core.recovery.connection_state import Luggage
from tests.kit.checksum import checksum
from tests.kit.clients.recovering import Event, Returning
from tests.kit.clock import ManualClock
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.server.in_process import PRICE, Running, running

DOCS = Path(__file__).parents[2] / "docs" / "redis.md"
_prefixes = itertools.count(1)


@contextlib.asynccontextmanager
async def nodes(
    redis: RedisServer | None, count: int = 2, **settings: object
) -> AsyncIterator[list["Node"]]:
    """So many servers that share a Redis and the time; each can be ended before the others."""
    clock = ManualClock()
    url = {} if redis is None else {"broker.url": redis.url}
    shared = {**url, "broker.prefix": f"crossing{next(_prefixes)}", **settings}
    async with contextlib.AsyncExitStack() as stack:
        floors = []
        for _ in range(count):
            own = await stack.enter_async_context(contextlib.AsyncExitStack())
            floor = await own.enter_async_context(running(shared, clock=clock))
            floors.append(Node(floor, own))
            await floors[-1].up()
        yield floors


class Node:
    """One server, and how to end it."""

    def __init__(self, floor: Running, stack: contextlib.AsyncExitStack) -> None:
        self.floor = floor
        self.end = stack.aclose

    @property
    def broker(self) -> RedisBroker:
        broker = self.floor.server.broker
        assert isinstance(broker, RedisBroker)
        return broker

    async def up(self) -> None:
        await until(lambda: self.broker._follower.up)

    async def heard(self) -> None:
        """Wait until it has heard all that was published of what is followed there."""
        for channel in self.floor.server.fanout.channels():
            await self.broker.since(channel.name, channel.view.position)

    def total(self, name: str) -> int:
        return self.floor.server.counters.total(f"recovery.{name}")


async def trader(node: Node, *topics: str, user: str = "ann", **token: Any) -> Returning:
    client = Returning(node.floor, user, "/market", **token)
    assert await client.come() == []
    if topics:
        await client.call("subscribe", topics=list(topics))
    return client


async def back(client: Returning, node: Node, **auth: object) -> list[Event]:
    """Be back there, wherever it was before."""
    client.floor = node.floor
    return await client.come(**auth)


async def trade(node: Node, *numbers: int, symbol: str = "A") -> None:
    for number in numbers:
        each = {"id": number, "price": "1", "qty": "1", "side": "buy", "ts": 1}
        await node.floor.server.publishing.publish(f"TRADES:{symbol}", {"trades": [each]})


async def price(node: Node, last: int) -> None:
    await node.floor.server.publishing.publish("PRICE:A", {**PRICE, "last": str(last)})


def ids(events: list[Event]) -> list[int]:
    return [body["data"]["trades"][0]["id"] for event, body in events if event == "trades"]


async def empty(*all_nodes: Node, clients: tuple[Returning, ...]) -> None:
    """Everybody is cut off, the window passes, and nothing is left on any node."""
    for client in clients:
        if client.client is not None:
            await client.cut()
    all_nodes[0].floor.clock.advance(121)
    for node in all_nodes:
        floor = node.floor
        floor.server.tick()
        for namespace in floor.server.namespaces:
            await namespace.sweep()
        await floor.until_empty()
        assert floor.server.fanout._roster.parked == {}
        assert floor.server.subscriptions._parked == set()


async def test_a_client_is_back_as_itself_on_whichever_node_again_and_again(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = await trader(floors[0], "TRADES:A")
        sid, pid = ann.sid, ann.pid
        number = 0
        for turn in (1, 0, 1, 1, 2, 0, 2, 1):
            await ann.cut()
            await trade(floors[number % 3], number + 1, number + 2)
            await floors[turn].heard()
            missed = await back(ann, floors[turn])
            assert (ann.recovered, ann.sid, ann.pid) == (True, sid, pid), turn
            assert ids(missed) == [number + 1, number + 2]
            await trade(floors[(turn + 1) % 3], number + 3)
            assert ids([await ann.next()]) == [number + 3]
            number += 3
        assert sum(each.total("from_node") for each in floors) == 7, "once it was there already"
        await empty(*floors, clients=(ann,))
        with shared_redis.client() as client:
            prefix = floors[0].floor.server.settings.broker.prefix
            await until(lambda: not client.keys(f"{prefix}:recovery:*"))


async def test_what_was_merged_comes_by_its_latest_and_a_book_is_the_book(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "PRICE:A", "ORDERBOOK:A", "TRADES:A")
        await ann.call("subscribe", topics=["PRICE:B"], interval_ms=1000)
        sides: tuple[dict[str, str], dict[str, str]] = ({}, {})

        async def book(node: Node, *bids: tuple[str, str]) -> None:
            data = {"bids": list(bids), "asks": [("900", "1")]}
            await node.floor.server.publishing.publish("ORDERBOOK:A", data)

        def apply(body: dict[str, Any]) -> None:
            for side, key in zip(sides, ("bids", "asks"), strict=True):
                if body["type"] == "snapshot":
                    side.clear()
                side.update(dict(body["data"][key]))
                for level in [each for each, quantity in side.items() if quantity == "0"]:
                    del side[level]
            assert checksum(*sides) == body["data"]["checksum"]

        await book(one, ("1", "1"), ("2", "2"))
        await price(one, 1)
        seen = dict([await ann.next(), await ann.next()])
        apply(seen["orderbook"])
        listening = await trader(two, "ORDERBOOK:A")
        for turn, node in enumerate((two, one, two, two), 1):
            await ann.cut()
            for step in range(5):
                await book(one, (str(step + 1), "0"), (str(turn * 10 + step), str(step + 1)))
                await price(two, turn * 10 + step)
            await trade(one, turn)
            await node.heard()
            missed = await back(ann, node)
            assert ann.recovered
            events = [event for event, _ in missed if event != "status"]
            assert sorted(events) == ["orderbook", "price", "trades"]
            new = dict(missed)
            assert new["price"]["data"]["last"] == str(turn * 10 + 4)
            for event in ("price", "orderbook"):
                assert new[event]["prev"] == seen[event]["seq"]
                assert new[event]["seq"] == seen[event]["seq"] + 5
            apply(new["orderbook"])
            await book(two, ("1", str(turn)))
            seen = {"price": new["price"], "orderbook": (await ann.next())[1]}
            apply(seen["orderbook"])
            assert seen["orderbook"]["prev"] == new["orderbook"]["seq"]
            topics = (await ann.call("subscriptions"))["topics"]
            assert {name: each["interval_ms"] for name, each in topics.items()} == {
                "PRICE:A": 0,
                "ORDERBOOK:A": 0,
                "TRADES:A": 0,
                "PRICE:B": 1000,
            }
        await empty(one, two, clients=(ann, listening))


async def test_only_what_it_has_not_seen_comes_again(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        await trade(one, 1, 2, 3)
        await ann.next()
        await ann.cut()
        await trade(two, 4)
        assert ids(await back(ann, two)) == [2, 3, 4]
        await empty(one, two, clients=(ann,))


async def test_who_glimpsed_the_other_node_and_saw_nothing_there_has_lost_nothing(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = await trader(floors[0], "TRADES:A")
        await ann.cut()
        await trade(floors[0], 1)
        for node in (floors[1], floors[1], floors[2], floors[0]):
            ann.floor = node.floor
            await ann.glimpse()
        assert ids(await back(ann, floors[1])) == [1]
        assert ann.recovered
        await empty(*floors, clients=(ann,))


async def test_a_half_open_connection_is_ended_when_its_client_is_back_elsewhere(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        await trade(one, 1)
        old, ann.client = ann.wire, None
        assert ids(await back(ann, two)) == [1]
        assert ann.recovered
        await old.ended()
        assert one.floor.residue()["sockets"] == one.floor.residue()["tickets"] == 0
        await empty(one, two, clients=(ann,))


@pytest.mark.parametrize("alive", [True, False])
async def test_somebody_elses_secret_opens_nothing_and_its_owner_is_back_all_the_same(
    shared_redis: RedisServer, alive: bool
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        if alive:
            await ann.cut()
        else:
            await one.end()
            while (await ann.next())[0] != "goodbye":
                pass
            await ann.wire.ended()
        await trade(two, 1)
        thieves = [
            Returning(two.floor, "eve", "/market"),
            Returning(two.floor, "ann", "/market", org="acme"),
            Returning(two.floor, "ann", "/session"),
        ]
        for thief in thieves:
            thief.pid, thief.offset = ann.pid, ann.offset
            assert await thief.come() == []
            assert not thief.recovered
            assert ann.pid not in (None, thief.pid)
            assert thief.sid != ann.sid
        assert ids(await back(ann, two)) == [1]
        assert ann.recovered
        await empty(two, clients=(ann, *thieves))


@pytest.mark.parametrize("forged", ["", "zzzz-1", "TAG-999999999", "TAG-"])
async def test_a_forged_offset_recovers_nothing_and_tells_nothing(
    shared_redis: RedisServer, forged: str
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        assert ann.offset is not None
        await ann.cut()
        await trade(one, 1)
        ann.offset = forged.replace("TAG", ann.offset.partition("-")[0])
        assert await back(ann, two) == []
        assert not ann.recovered
        assert (await ann.call("subscriptions"))["topics"] == {}
        await empty(one, two, clients=(ann,))


@pytest.mark.parametrize(
    "forged",
    ["NODE.nonsense", "0123456789ab.nonsense", "a:b*.x", "x" * 64, "é.é", ".", "NODE."],
)
async def test_a_forged_secret_is_a_new_connection(shared_redis: RedisServer, forged: str) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        assert ann.pid is not None
        await ann.cut()
        eve = Returning(two.floor, "ann", "/market")
        eve.pid, eve.offset = forged.replace("NODE", ann.pid.partition(".")[0]), ann.offset
        assert await eve.come() == []
        assert not eve.recovered
        await back(ann, two)
        assert ann.recovered
        await empty(one, two, clients=(ann, eve))


async def test_two_nodes_that_ask_at_once_do_not_both_get_it(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = await trader(floors[0], "TRADES:A")
        await ann.cut()
        await trade(floors[0], 1)
        twins = [Returning(node.floor, "ann", "/market") for node in floors[1:]]
        for twin in twins:
            twin.pid, twin.offset = ann.pid, ann.offset
        missed = await asyncio.gather(*(twin.come() for twin in twins))
        assert sorted(twin.recovered for twin in twins) == [False, True]
        for twin, events in zip(twins, missed, strict=True):
            assert ids(events) == ([1] if twin.recovered else [])
            assert (twin.sid == ann.sid) == twin.recovered
        await empty(*floors, clients=tuple(twins))


async def test_the_token_is_judged_first_and_a_refusal_costs_the_owner_nothing(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        await ann.cut()
        await trade(one, 1)
        bad = [None, "nonsense", two.floor.token(ttl_seconds=0), two.floor.token(secret="x" * 40)]
        for token in bad:
            with pytest.raises(PermissionError, match=r"auth\."):
                await back(ann, two, token=token)
            ann.wire.cut()
        assert ids(await back(ann, two)) == [1]
        assert ann.recovered
        await empty(one, two, clients=(ann,))


@pytest.mark.parametrize("narrow", [{"symbols": ["B*"]}, {"scopes": [Scope.SESSION_JOIN]}])
async def test_a_narrower_token_does_not_get_back_what_it_may_not_have(
    shared_redis: RedisServer, narrow: dict[str, Any]
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A", "TRADES:B")
        await ann.cut()
        await trade(one, 1)
        await trade(one, 2, symbol="B")
        ann.token = narrow
        assert await back(ann, two) == []
        assert not ann.recovered
        await empty(one, two, clients=(ann,))


async def test_past_the_window_nobody_is_back(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        await ann.cut()
        await trade(one, 1)
        one.floor.clock.advance(120)
        assert await back(ann, two) == []
        assert not ann.recovered
        await empty(one, two, clients=(ann,))


async def test_what_cannot_be_told_any_more_is_not_told_by_halves(
    shared_redis: RedisServer,
) -> None:
    few = {"history.messages": 3, "delivery.backlog_messages": 3}
    for count, recovered in ((3, True), (4, False)):
        async with nodes(shared_redis, **few) as (one, two):
            ann = await trader(one, "TRADES:A", "TRADES:B")
            await ann.cut()
            await trade(one, *range(count))
            await trade(one, 9, symbol="B")
            missed = await back(ann, two)
            assert ann.recovered == recovered
            assert ids(missed) == ([*range(count), 9] if recovered else [])
            await empty(one, two, clients=(ann,))


async def test_a_private_stream_comes_along_and_stays_private(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann, eve = [await trader(one, "BOT_STATUS", user=user) for user in ("ann", "eve")]
        await ann.cut()
        await eve.cut()
        publish = two.floor.server.publishing.publish
        for user in ("ann", "eve"):
            await publish("BOT_STATUS", {"bot_id": "b", "status": user}, user=user)
        for client in (ann, eve):
            [(event, body)] = await back(client, two)
            assert (event, body["data"]["status"]) == ("bot_status", client.user)
        await empty(one, two, clients=(ann, eve))


async def test_a_feed_that_fell_silent_meanwhile_is_said_to_be_and_otherwise_nothing(
    shared_redis: RedisServer,
) -> None:
    silent = {"market.price_stale_seconds": 10}
    async with nodes(shared_redis, **silent) as (one, two):
        ann = await trader(one, "PRICE:A")
        other = await trader(two, "PRICE:A")
        await price(one, 1)
        await ann.next()
        await other.next()
        await ann.cut()
        assert await back(ann, two) == [], "it speaks, as it did before"
        await ann.cut()
        one.floor.clock.advance(11)
        for node in (one, two):
            node.floor.server.tick()
        [(event, body)] = await back(ann, one)
        assert (event, body["state"]) == ("status", "STALE")
        await ann.cut()
        assert await back(ann, two) == [], "it was told already"
        await empty(one, two, clients=(ann, other))


@pytest.mark.parametrize("topic", ["TRADES:A", "PRICE:A", "ORDERBOOK:A"])
async def test_who_has_seen_more_than_the_other_node_has_heard_is_waited_for(
    shared_redis: RedisServer, topic: str
) -> None:
    async with nodes(shared_redis) as (one, two):

        async def publish() -> None:
            await trade(one, 1)
            await price(one, 1)
            await one.floor.server.publishing.publish("ORDERBOOK:A", {"bids": [], "asks": []})

        ann, other = await trader(one, topic), await trader(two, topic)
        await publish()
        for client in (ann, other):
            assert (await client.next())[1]["seq"] == 1
        late: list[tuple[bytes, object]] = []
        listener = two.broker._follower._listener
        hear, listener._on_message = listener._on_message, lambda *told: late.append(told)
        await publish()
        assert (await ann.next())[1]["seq"] == 2
        await ann.cut()
        await publish()
        coming = asyncio.create_task(back(ann, two))
        await until(
            lambda: any(each.awaited for each in two.broker._follower._watches._watches.values())
        )
        listener._on_message = hear
        for told in late:
            hear(*told)
        missed = await coming
        assert ann.recovered
        await publish()
        bodies = [body for _, body in (*missed, await ann.next())]
        assert [(body["prev"], body["seq"]) for body in bodies] == [(2, 3), (3, 4)]
        await empty(one, two, clients=(ann, other))


async def test_a_history_that_was_lost_meanwhile_is_begun_anew_or_not_at_all(
    shared_redis: RedisServer,
) -> None:
    for topic, recovered in (("PRICE:A", True), ("TRADES:A", False)):
        async with nodes(shared_redis) as (one, two):
            ann = await trader(one, topic)
            for _ in range(3):
                await price(one, 1)
                await trade(one, 1)
                await ann.next()
            await ann.cut()
            prefix = one.floor.server.settings.broker.prefix
            with shared_redis.client() as client:
                client.delete(*client.keys(f"{prefix}:{{{topic}}}:*"))
            await price(two, 2)
            await trade(two, 2)
            missed = await back(ann, two)
            assert ann.recovered == recovered
            assert [(body["type"], body["seq"]) for _, body in missed] == (
                [("snapshot", 1)] if recovered else []
            )
            await empty(one, two, clients=(ann,))


def somebody_elses(luggage: Luggage, _: str) -> Luggage:
    return replace(luggage, user_id="bob")


def of_another_id(luggage: Luggage, taken: str) -> Luggage:
    return replace(luggage, connection_id=taken)


def of_another_history(luggage: Luggage, _: str) -> Luggage:
    first, second = luggage.topics
    return replace(luggage, topics=(replace(first, position=Position("another", 1)), second))


def of_the_future(luggage: Luggage, _: str) -> Luggage:
    return changed(luggage, position=replace(luggage.topics[1].position, seq=9))


def of_an_odd_pace(luggage: Luggage, _: str) -> Luggage:
    return changed(luggage, interval_ms=7)


def of_no_topic(luggage: Luggage, _: str) -> Luggage:
    return changed(luggage, topic="TRADES")


def too_many(luggage: Luggage, _: str) -> Luggage:
    return replace(luggage, topics=luggage.topics[:1] * 201)


def changed(luggage: Luggage, **fields: Any) -> Luggage:
    first, second = luggage.topics
    return replace(luggage, topics=(first, replace(second, **fields)))


@pytest.mark.parametrize(
    "forge",
    [
        somebody_elses,
        of_another_id,
        of_another_history,
        of_the_future,
        of_an_odd_pace,
        of_no_topic,
        too_many,
    ],
)
async def test_what_is_not_as_it_has_to_be_is_not_taken_in_and_leaves_nothing(
    shared_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    forge: Callable[[Luggage, str], Luggage],
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A", "PRICE:A")
        other = await trader(two, "TRADES:C")
        await ann.cut()
        handover: Any = one.floor.server.handover
        give = handover._give
        monkeypatch.setattr(handover, "_give", lambda each: forge(give(each), other.sid))
        await trade(one, 1)
        assert await back(ann, two) == []
        assert not ann.recovered
        assert two.floor.residue()["channels"] == 1
        await trade(one, 2, symbol="C")
        assert ids([await other.next()]) == [2]
        await empty(one, two, clients=(ann, other))


async def test_a_broker_that_fails_in_the_middle_leaves_nothing(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker cannot be reached")

    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "PRICE:A", "TRADES:A")
        await ann.cut()
        await trade(one, 1)
        monkeypatch.setattr(two.broker, "since", fail)
        assert await back(ann, two) == []
        assert not ann.recovered
        await empty(one, two, clients=(ann,))


async def test_an_answer_that_may_not_have_arrived_is_made_good_by_the_state(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        await price(one, 1)
        ann = await trader(one, "PRICE:A")
        await ann.cut()
        [(event, body)] = await back(ann, two)
        assert (event, body["type"], body["seq"]) == ("price", "snapshot", 1)
        await empty(one, two, clients=(ann,))


# --- a node that has ended


async def drained(node: Node, *clients: Returning) -> None:
    """The node ends; each client has read its goodbye."""
    ending = asyncio.create_task(node.end())
    for client in clients:
        while (await client.next())[0] != "goodbye":
            pass
        await client.wire.ended()
        client.client = None
    await ending


async def test_after_a_drain_everybody_who_saw_the_goodbye_is_back_elsewhere(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        clients = [await trader(one, "TRADES:A", "PRICE:A", user=f"u{n}") for n in range(5)]
        await trade(one, 1)
        await drained(one, *clients)
        await trade(two, 2, 3)
        await price(two, 7)
        for client in clients:
            sid, pid = client.sid, client.pid
            missed = await back(client, two)
            assert (client.recovered, client.sid, client.pid) == (True, sid, pid)
            assert ids(missed) == [2, 3]
            assert [event for event, _ in missed].count("price") == 1
        assert two.total("from_saved") == 5
        await trade(two, 4)
        for client in clients:
            assert ids([await client.next()]) == [4]
        await empty(two, clients=tuple(clients))


async def test_what_a_node_left_behind_is_had_once(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = await trader(floors[0], "TRADES:A")
        await drained(floors[0], ann)
        twins = [Returning(node.floor, "ann", "/market") for node in floors[1:]]
        for twin in twins:
            twin.pid, twin.offset = ann.pid, ann.offset
        await asyncio.gather(*(twin.come() for twin in twins))
        assert sorted(twin.recovered for twin in twins) == [False, True]
        await empty(*floors[1:], clients=tuple(twins))


async def test_after_a_drain_who_did_not_see_the_last_is_somebody_new(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        before = ann.offset
        await trade(one, 1)
        await one.heard()
        await drained(one, ann)
        assert ann.offset != before
        ann.offset = before
        assert await back(ann, two) == []
        assert not ann.recovered
        await empty(two, clients=(ann,))


async def test_a_rolling_restart_brings_everybody_from_node_to_node(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis, 4) as floors:
        ann = await trader(floors[0], "TRADES:A")
        for number, (node, other) in enumerate(itertools.pairwise(floors)):
            await drained(node, ann)
            await trade(other, number)
            assert ids(await back(ann, other)) == [number]
            assert ann.recovered
        await ann.cut()
        await empty(floors[-1], clients=(ann,))


async def test_a_node_that_died_gives_nobody_back(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        await ann.cut()
        await one.broker.stop()
        with shared_redis.client() as client:
            await until(lambda: client.pubsub_numsub(one.broker._follower._own)[0][1] == 0)
        assert await back(ann, two) == []
        assert not ann.recovered
        assert (two.total("not_had"), two.total("unanswered")) == (1, 0)
        await empty(two, clients=(ann,))
        await one.end()


async def test_a_node_that_does_not_answer_delays_nobody_for_long(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.brokers.redis.recovery.handover._ANSWER_SECONDS", 0.05)
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        await ann.cut()
        one.broker.answer_to(lambda _: None)
        assert await back(ann, two) == []
        assert (ann.recovered, two.total("unanswered")) == (False, 1)
        await empty(one, two, clients=(ann,))


@pytest.mark.parametrize("gone", [True, False])
async def test_while_redis_is_away_everybody_is_let_in_anew_and_soon(
    gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.brokers.redis.recovery.handover._LIMIT_SECONDS", 0.05)
    with redis_server() as redis:
        async with nodes(redis) as (one, two):
            ann = await trader(one, "TRADES:A")
            await ann.cut()
            if gone:
                redis.kill()
            else:
                redis.pause()
            try:
                assert await back(ann, two) == []
                assert (ann.recovered, two.total("unanswered")) == (False, 1)
            finally:
                if not gone:
                    redis.resume()
            await ann.cut()
            if gone:
                redis.start()
            for node in (one, two):
                await node.up()


async def test_in_a_cluster_a_client_is_back_too_and_a_node_that_has_ended_costs_a_little_time(
    shards_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.brokers.redis.recovery.handover._ANSWER_SECONDS", 0.2)
    settings = {"broker.url": shards_url, "broker.prefix": f"crossing{next(_prefixes)}"}
    async with nodes(None, 3, **settings) as floors:
        ann = await trader(floors[0], "TRADES:A")
        for number in range(4):
            await ann.cut()
            await trade(floors[2], number)
            assert ids(await back(ann, floors[number % 2 + 1])) == [number]
            assert ann.recovered
        await drained(floors[2], ann)
        await trade(floors[0], 9)
        assert ids(await back(ann, floors[1])) == [9]
        assert (floors[1].total("from_saved"), floors[1].total("unanswered")) == (1, 1)
        await empty(*floors[:2], clients=(ann,))


async def test_the_documented_rights_are_enough() -> None:
    rules = re.search(r"user floorcast on >PASSWORD (.*?)```", DOCS.read_text(), re.DOTALL)
    assert rules is not None
    with redis_server() as redis:
        with redis.client() as client:
            client.execute_command("ACL SETUSER floorcast on >p", *rules.group(1).split())  # type: ignore[no-untyped-call]
        url = redis.url.replace("unix://", "unix://floorcast:p@")
        async with nodes(redis, 3, **{"broker.url": url, "broker.prefix": "floorcast"}) as floors:
            ann = await trader(floors[0], "TRADES:A")
            await ann.cut()
            for node in floors[1::-1]:
                await back(ann, node)
                assert ann.recovered
                await ann.cut()
            await back(ann, floors[1])
            await drained(floors[1], ann)
            await back(ann, floors[2])
            assert ann.recovered
            await empty(floors[0], floors[2], clients=(ann,))
        with redis.client() as client:
            assert client.acl_log() == [], "nothing was refused"


@contextlib.asynccontextmanager
async def on_the_way(ann: Returning, node: Node) -> AsyncIterator[list[object]]:
    """Cut off again while it is brought to this node, which hears the others after the block."""
    handover: Any = node.floor.server.handover
    held: list[object] = []
    node.broker.answer_to(held.append)
    ann.floor = node.floor
    await ann._open()
    auth = {"token": node.floor.token("ann"), "pid": ann.pid, "offset": ann.offset}
    ann.wire.send(f"40/market,{json.dumps(auth)}")
    await until(lambda: held)
    ann.wire.cut()
    await until(lambda: not node.floor.residue()["sockets"])
    ann.client = None
    yield held
    node.broker.answer_to(handover._hear)
    # What others ask of it comes before what it has asked for.
    for each in reversed(held):
        handover._hear(each)


@pytest.mark.parametrize("where", [0, 1, 2])
async def test_who_is_cut_off_again_on_the_way_to_another_node_is_back_wherever_it_comes(
    shared_redis: RedisServer, where: int
) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = await trader(floors[0], "TRADES:A")
        await ann.cut()
        await trade(floors[0], 1)
        async with on_the_way(ann, floors[1]) as held:
            coming = asyncio.create_task(back(ann, floors[where]))
            if where == 1:
                await until(lambda: floors[1].floor.residue()["sockets"])
            else:
                await until(lambda: len(held) == 2)
        assert ids(await coming) == [1]
        assert ann.recovered
        await empty(*floors, clients=(ann,))


async def test_a_client_that_goes_while_it_is_brought_over_is_waited_for_and_leaves_nothing(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        await ann.cut()
        async with on_the_way(ann, two):
            pass
        await until(lambda: two.floor.residue()["tickets"])
        await empty(one, two, clients=())


async def test_a_session_is_had_back_on_its_own_node_alone(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = Returning(one.floor, "ann", "/session")
        ann.auth = {"session_id": "room"}
        await ann.come()
        await ann.cut()
        await back(ann, two)
        assert not ann.recovered
        assert (two.total("from_node"), two.total("not_had")) == (0, 0), "nobody was asked"
        await ann.cut()


async def test_what_no_node_of_ours_has_said_is_counted_and_changes_nothing(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await trader(one, "TRADES:A")
        await ann.cut()
        strange = [
            b"x",
            b"{}",
            b'{"v":2,"answer":1,"luggage":null}',
            b'{"v":1,"answer":"1","luggage":null}',
            b'{"v":1,"answer":1,"luggage":{"connection_id":"c"}}',
            b'{"v":1,"ask":1,"node":"n"}',
            b'{"v":1,"answer":1,"luggage":null}' + b" " * 300_000,
        ]
        with shared_redis.client() as client:
            for each in strange:
                client.publish(one.broker._follower._own.decode(), each)
        counters = one.floor.server.counters
        await until(lambda: counters.total("broker.strange") == len(strange))
        await back(ann, two)
        assert ann.recovered
        await empty(one, two, clients=(ann,))


@pytest.mark.parametrize("namespace", ["/market", "/session"])
async def test_who_is_new_on_a_node_and_has_heard_nothing_there_is_had_back(
    shared_redis: RedisServer, namespace: str
) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = Returning(floors[0].floor, "ann", namespace)
        await ann.come()
        await ann.cut()
        ann.pid = "lost"
        ann.floor = floors[1].floor
        await ann._open()
        # The welcome is lost, and with it the first offset of this node.
        await ann._ask({})
        assert (ann.recovered, ann.pid != "lost") == (False, True)
        await ann.cut()
        await back(ann, floors[2 if namespace == "/market" else 1])
        assert ann.recovered
        await ann.cut()
