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
from server.core.recovery.connection_state import ConnectionState
from tests.kit.checksum import checksum
from tests.kit.clients.recovering import Event, RecoveringClient
from tests.kit.clock import ManualClock
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.server.in_process import PRICE, RunningServer, running

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
            await floors[-1].until_up()
        yield floors


class Node:
    """One server, and how to end it."""

    def __init__(self, server: RunningServer, stack: contextlib.AsyncExitStack) -> None:
        self.server = server
        self.stop = stack.aclose

    @property
    def broker(self) -> RedisBroker:
        broker = self.server.server.broker
        assert isinstance(broker, RedisBroker)
        return broker

    async def until_up(self) -> None:
        await until(lambda: self.broker._subscriber.is_up)

    async def until_caught_up(self) -> None:
        """Wait until it has heard all that was published of what is followed there."""
        for channel in self.server.server.hub.channels():
            await self.broker.since(channel.name, channel.state.position)

    def recovery_count(self, name: str) -> int:
        return self.server.server.counters.total(f"recovery.{name}")


async def market_client(
    node: Node, *topics: str, user: str = "ann", **token: Any
) -> RecoveringClient:
    client = RecoveringClient(node.server, user, "/market", **token)
    assert await client.connect() == []
    if topics:
        await client.call("subscribe", topics=list(topics))
    return client


async def reconnect(client: RecoveringClient, node: Node, **auth: object) -> list[Event]:
    """Be back there, wherever it was before."""
    client.node = node.server
    return await client.connect(**auth)


async def publish_trades(node: Node, *numbers: int, symbol: str = "A") -> None:
    for number in numbers:
        each = {"id": number, "price": "1", "qty": "1", "side": "buy", "ts": 1}
        await node.server.server.publishing.publish(f"TRADES:{symbol}", {"trades": [each]})


async def publish_price(node: Node, last: int) -> None:
    await node.server.server.publishing.publish("PRICE:A", {**PRICE, "last": str(last)})


def trade_ids(events: list[Event]) -> list[int]:
    return [body["data"]["trades"][0]["id"] for event, body in events if event == "trades"]


async def check_empty(*all_nodes: Node, clients: tuple[RecoveringClient, ...]) -> None:
    """Everybody is cut off, the window passes, and nothing is left on any node."""
    for client in clients:
        if client.client is not None:
            await client.cut()
    all_nodes[0].server.clock.advance(121)
    for node in all_nodes:
        floor = node.server
        floor.server.tick()
        for namespace in floor.server.namespaces:
            await namespace.sweep()
        await floor.until_empty()
        assert floor.server.hub._registry.parked == {}
        assert floor.server.subscriptions._parked == set()


async def test_a_client_is_back_as_itself_on_whichever_node_again_and_again(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = await market_client(floors[0], "TRADES:A")
        sid, pid = ann.sid, ann.pid
        number = 0
        for turn in (1, 0, 1, 1, 2, 0, 2, 1):
            await ann.cut()
            await publish_trades(floors[number % 3], number + 1, number + 2)
            await floors[turn].until_caught_up()
            missed = await reconnect(ann, floors[turn])
            assert (ann.recovered, ann.sid, ann.pid) == (True, sid, pid), turn
            assert trade_ids(missed) == [number + 1, number + 2]
            await publish_trades(floors[(turn + 1) % 3], number + 3)
            assert trade_ids([await ann.next()]) == [number + 3]
            number += 3
        assert sum(each.recovery_count("from_node") for each in floors) == 7, (
            "once it was there already"
        )
        await check_empty(*floors, clients=(ann,))
        with shared_redis.client() as client:
            prefix = floors[0].server.server.settings.broker.prefix
            await until(lambda: not client.keys(f"{prefix}:recovery:*"))


async def test_what_was_merged_comes_by_its_latest_and_a_book_is_the_book(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "PRICE:A", "ORDERBOOK:A", "TRADES:A")
        await ann.call("subscribe", topics=["PRICE:B"], interval_ms=1000)
        sides: tuple[dict[str, str], dict[str, str]] = ({}, {})

        async def book(node: Node, *bids: tuple[str, str]) -> None:
            data = {"bids": list(bids), "asks": [("900", "1")]}
            await node.server.server.publishing.publish("ORDERBOOK:A", data)

        def apply(body: dict[str, Any]) -> None:
            for side, key in zip(sides, ("bids", "asks"), strict=True):
                if body["type"] == "snapshot":
                    side.clear()
                side.update(dict(body["data"][key]))
                for level in [each for each, quantity in side.items() if quantity == "0"]:
                    del side[level]
            assert checksum(*sides) == body["data"]["checksum"]

        await book(one, ("1", "1"), ("2", "2"))
        await publish_price(one, 1)
        seen = dict([await ann.next(), await ann.next()])
        apply(seen["orderbook"])
        listening = await market_client(two, "ORDERBOOK:A")
        for turn, node in enumerate((two, one, two, two), 1):
            await ann.cut()
            for step in range(5):
                await book(one, (str(step + 1), "0"), (str(turn * 10 + step), str(step + 1)))
                await publish_price(two, turn * 10 + step)
            await publish_trades(one, turn)
            await node.until_caught_up()
            missed = await reconnect(ann, node)
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
        await check_empty(one, two, clients=(ann, listening))


async def test_only_what_it_has_not_seen_comes_again(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await publish_trades(one, 1, 2, 3)
        await ann.next()
        await ann.cut()
        await publish_trades(two, 4)
        assert trade_ids(await reconnect(ann, two)) == [2, 3, 4]
        await check_empty(one, two, clients=(ann,))


async def test_who_glimpsed_the_other_node_and_saw_nothing_there_has_lost_nothing(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = await market_client(floors[0], "TRADES:A")
        await ann.cut()
        await publish_trades(floors[0], 1)
        for node in (floors[1], floors[1], floors[2], floors[0]):
            ann.node = node.server
            await ann.connect_and_cut()
        assert trade_ids(await reconnect(ann, floors[1])) == [1]
        assert ann.recovered
        await check_empty(*floors, clients=(ann,))


async def test_a_half_open_connection_is_ended_when_its_client_is_back_elsewhere(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await publish_trades(one, 1)
        old, ann.client = ann.wire, None
        assert trade_ids(await reconnect(ann, two)) == [1]
        assert ann.recovered
        await old.until_closed()
        assert one.server.residue()["sockets"] == one.server.residue()["tickets"] == 0
        await check_empty(one, two, clients=(ann,))


@pytest.mark.parametrize("alive", [True, False])
async def test_somebody_elses_secret_opens_nothing_and_its_owner_is_back_all_the_same(
    shared_redis: RedisServer, alive: bool
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        if alive:
            await ann.cut()
        else:
            await one.stop()
            while (await ann.next())[0] != "goodbye":
                pass
            await ann.wire.until_closed()
        await publish_trades(two, 1)
        thieves = [
            RecoveringClient(two.server, "eve", "/market"),
            RecoveringClient(two.server, "ann", "/market", org="acme"),
            RecoveringClient(two.server, "ann", "/session"),
        ]
        for thief in thieves:
            thief.pid, thief.offset = ann.pid, ann.offset
            assert await thief.connect() == []
            assert not thief.recovered
            assert ann.pid not in (None, thief.pid)
            assert thief.sid != ann.sid
        assert trade_ids(await reconnect(ann, two)) == [1]
        assert ann.recovered
        await check_empty(two, clients=(ann, *thieves))


@pytest.mark.parametrize("forged", ["", "zzzz-1", "TAG-999999999", "TAG-"])
async def test_a_forged_offset_recovers_nothing_and_tells_nothing(
    shared_redis: RedisServer, forged: str
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        assert ann.offset is not None
        await ann.cut()
        await publish_trades(one, 1)
        ann.offset = forged.replace("TAG", ann.offset.partition("-")[0])
        assert await reconnect(ann, two) == []
        assert not ann.recovered
        assert (await ann.call("subscriptions"))["topics"] == {}
        await check_empty(one, two, clients=(ann,))


@pytest.mark.parametrize(
    "forged",
    ["NODE.nonsense", "0123456789ab.nonsense", "a:b*.x", "x" * 64, "é.é", ".", "NODE."],
)
async def test_a_forged_secret_is_a_new_connection(shared_redis: RedisServer, forged: str) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        assert ann.pid is not None
        await ann.cut()
        eve = RecoveringClient(two.server, "ann", "/market")
        eve.pid, eve.offset = forged.replace("NODE", ann.pid.partition(".")[0]), ann.offset
        assert await eve.connect() == []
        assert not eve.recovered
        await reconnect(ann, two)
        assert ann.recovered
        await check_empty(one, two, clients=(ann, eve))


async def test_two_nodes_that_ask_at_once_do_not_both_get_it(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = await market_client(floors[0], "TRADES:A")
        await ann.cut()
        await publish_trades(floors[0], 1)
        twins = [RecoveringClient(node.server, "ann", "/market") for node in floors[1:]]
        for twin in twins:
            twin.pid, twin.offset = ann.pid, ann.offset
        missed = await asyncio.gather(*(twin.connect() for twin in twins))
        assert sorted(twin.recovered for twin in twins) == [False, True]
        for twin, events in zip(twins, missed, strict=True):
            assert trade_ids(events) == ([1] if twin.recovered else [])
            assert (twin.sid == ann.sid) == twin.recovered
        await check_empty(*floors, clients=tuple(twins))


async def test_the_token_is_judged_first_and_a_refusal_costs_the_owner_nothing(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await ann.cut()
        await publish_trades(one, 1)
        bad = [None, "nonsense", two.server.token(ttl_seconds=0), two.server.token(secret="x" * 40)]
        for token in bad:
            with pytest.raises(PermissionError, match=r"auth\."):
                await reconnect(ann, two, token=token)
            ann.wire.cut()
        assert trade_ids(await reconnect(ann, two)) == [1]
        assert ann.recovered
        await check_empty(one, two, clients=(ann,))


@pytest.mark.parametrize("narrow", [{"symbols": ["B*"]}, {"scopes": [Scope.SESSION_JOIN]}])
async def test_a_narrower_token_does_not_get_back_what_it_may_not_have(
    shared_redis: RedisServer, narrow: dict[str, Any]
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A", "TRADES:B")
        await ann.cut()
        await publish_trades(one, 1)
        await publish_trades(one, 2, symbol="B")
        ann.token = narrow
        assert await reconnect(ann, two) == []
        assert not ann.recovered
        await check_empty(one, two, clients=(ann,))


async def test_past_the_window_nobody_is_back(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await ann.cut()
        await publish_trades(one, 1)
        one.server.clock.advance(120)
        assert await reconnect(ann, two) == []
        assert not ann.recovered
        await check_empty(one, two, clients=(ann,))


async def test_what_cannot_be_told_any_more_is_not_told_by_halves(
    shared_redis: RedisServer,
) -> None:
    few = {"history.messages": 3, "delivery.backlog_messages": 3}
    for count, recovered in ((3, True), (4, False)):
        async with nodes(shared_redis, **few) as (one, two):
            ann = await market_client(one, "TRADES:A", "TRADES:B")
            await ann.cut()
            await publish_trades(one, *range(count))
            await publish_trades(one, 9, symbol="B")
            missed = await reconnect(ann, two)
            assert ann.recovered == recovered
            assert trade_ids(missed) == ([*range(count), 9] if recovered else [])
            await check_empty(one, two, clients=(ann,))


async def test_a_private_stream_comes_along_and_stays_private(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann, eve = [await market_client(one, "BOT_STATUS", user=user) for user in ("ann", "eve")]
        await ann.cut()
        await eve.cut()
        publish = two.server.server.publishing.publish
        for user in ("ann", "eve"):
            await publish("BOT_STATUS", {"bot_id": "b", "status": user}, user=user)
        for client in (ann, eve):
            [(event, body)] = await reconnect(client, two)
            assert (event, body["data"]["status"]) == ("bot_status", client.user)
        await check_empty(one, two, clients=(ann, eve))


async def test_a_feed_that_fell_silent_meanwhile_is_said_to_be_and_otherwise_nothing(
    shared_redis: RedisServer,
) -> None:
    silent = {"market.price_stale_seconds": 10}
    async with nodes(shared_redis, **silent) as (one, two):
        ann = await market_client(one, "PRICE:A")
        other = await market_client(two, "PRICE:A")
        await publish_price(one, 1)
        await ann.next()
        await other.next()
        await ann.cut()
        assert await reconnect(ann, two) == [], "it speaks, as it did before"
        await ann.cut()
        one.server.clock.advance(11)
        for node in (one, two):
            node.server.server.tick()
        [(event, body)] = await reconnect(ann, one)
        assert (event, body["state"]) == ("status", "STALE")
        await ann.cut()
        assert await reconnect(ann, two) == [], "it was told already"
        await check_empty(one, two, clients=(ann, other))


@pytest.mark.parametrize("topic", ["TRADES:A", "PRICE:A", "ORDERBOOK:A"])
async def test_who_has_seen_more_than_the_other_node_has_heard_is_waited_for(
    shared_redis: RedisServer, topic: str
) -> None:
    async with nodes(shared_redis) as (one, two):

        async def publish() -> None:
            await publish_trades(one, 1)
            await publish_price(one, 1)
            await one.server.server.publishing.publish("ORDERBOOK:A", {"bids": [], "asks": []})

        ann, other = await market_client(one, topic), await market_client(two, topic)
        await publish()
        for client in (ann, other):
            assert (await client.next())[1]["seq"] == 1
        late: list[tuple[bytes, object]] = []
        listener = two.broker._subscriber._pubsub
        hear, listener._on_message = listener._on_message, lambda *told: late.append(told)
        await publish()
        assert (await ann.next())[1]["seq"] == 2
        await ann.cut()
        await publish()
        coming = asyncio.create_task(reconnect(ann, two))
        await until(
            lambda: any(
                each.position_waiters
                for each in two.broker._subscriber._gap_detector._channels.values()
            )
        )
        listener._on_message = hear
        for told in late:
            hear(*told)
        missed = await coming
        assert ann.recovered
        await publish()
        bodies = [body for _, body in (*missed, await ann.next())]
        assert [(body["prev"], body["seq"]) for body in bodies] == [(2, 3), (3, 4)]
        await check_empty(one, two, clients=(ann, other))


async def test_a_history_that_was_lost_meanwhile_is_begun_anew_or_not_at_all(
    shared_redis: RedisServer,
) -> None:
    for topic, recovered in (("PRICE:A", True), ("TRADES:A", False)):
        async with nodes(shared_redis) as (one, two):
            ann = await market_client(one, topic)
            for _ in range(3):
                await publish_price(one, 1)
                await publish_trades(one, 1)
                await ann.next()
            await ann.cut()
            prefix = one.server.server.settings.broker.prefix
            with shared_redis.client() as client:
                client.delete(*client.keys(f"{prefix}:{{{topic}}}:*"))
            await publish_price(two, 2)
            await publish_trades(two, 2)
            missed = await reconnect(ann, two)
            assert ann.recovered == recovered
            assert [(body["type"], body["seq"]) for _, body in missed] == (
                [("snapshot", 1)] if recovered else []
            )
            await check_empty(one, two, clients=(ann,))


def other_user(luggage: ConnectionState, _: str) -> ConnectionState:
    return replace(luggage, user_id="bob")


def taken_connection_id(luggage: ConnectionState, taken: str) -> ConnectionState:
    return replace(luggage, connection_id=taken)


def other_epoch(luggage: ConnectionState, _: str) -> ConnectionState:
    first, second = luggage.topics
    return replace(luggage, topics=(replace(first, position=Position("another", 1)), second))


def future_position(luggage: ConnectionState, _: str) -> ConnectionState:
    return changed(luggage, position=replace(luggage.topics[1].position, seq=9))


def unknown_interval(luggage: ConnectionState, _: str) -> ConnectionState:
    return changed(luggage, interval_ms=7)


def invalid_topic(luggage: ConnectionState, _: str) -> ConnectionState:
    return changed(luggage, topic="TRADES")


def too_many_topics(luggage: ConnectionState, _: str) -> ConnectionState:
    return replace(luggage, topics=luggage.topics[:1] * 201)


def changed(luggage: ConnectionState, **fields: Any) -> ConnectionState:
    first, second = luggage.topics
    return replace(luggage, topics=(first, replace(second, **fields)))


@pytest.mark.parametrize(
    "forge",
    [
        other_user,
        taken_connection_id,
        other_epoch,
        future_position,
        unknown_interval,
        invalid_topic,
        too_many_topics,
    ],
)
async def test_what_is_not_as_it_has_to_be_is_not_taken_in_and_leaves_nothing(
    shared_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    forge: Callable[[ConnectionState, str], ConnectionState],
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A", "PRICE:A")
        other = await market_client(two, "TRADES:C")
        await ann.cut()
        handover: Any = one.server.server.handover
        give = handover._export
        monkeypatch.setattr(handover, "_export", lambda each: forge(give(each), other.sid))
        await publish_trades(one, 1)
        assert await reconnect(ann, two) == []
        assert not ann.recovered
        assert two.server.residue()["channels"] == 1
        await publish_trades(one, 2, symbol="C")
        assert trade_ids([await other.next()]) == [2]
        await check_empty(one, two, clients=(ann, other))


async def test_a_broker_that_fails_in_the_middle_leaves_nothing(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker cannot be reached")

    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "PRICE:A", "TRADES:A")
        await ann.cut()
        await publish_trades(one, 1)
        monkeypatch.setattr(two.broker, "since", fail)
        assert await reconnect(ann, two) == []
        assert not ann.recovered
        await check_empty(one, two, clients=(ann,))


async def test_an_answer_that_may_not_have_arrived_is_made_good_by_the_state(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        await publish_price(one, 1)
        ann = await market_client(one, "PRICE:A")
        await ann.cut()
        [(event, body)] = await reconnect(ann, two)
        assert (event, body["type"], body["seq"]) == ("price", "snapshot", 1)
        await check_empty(one, two, clients=(ann,))


# --- a node that has ended


async def drain(node: Node, *clients: RecoveringClient) -> None:
    """The node ends; each client has read its goodbye."""
    ending = asyncio.create_task(node.stop())
    for client in clients:
        while (await client.next())[0] != "goodbye":
            pass
        await client.wire.until_closed()
        client.client = None
    await ending


async def test_after_a_drain_everybody_who_saw_the_goodbye_is_back_elsewhere(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        clients = [await market_client(one, "TRADES:A", "PRICE:A", user=f"u{n}") for n in range(5)]
        await publish_trades(one, 1)
        await drain(one, *clients)
        await publish_trades(two, 2, 3)
        await publish_price(two, 7)
        for client in clients:
            sid, pid = client.sid, client.pid
            missed = await reconnect(client, two)
            assert (client.recovered, client.sid, client.pid) == (True, sid, pid)
            assert trade_ids(missed) == [2, 3]
            assert [event for event, _ in missed].count("price") == 1
        assert two.recovery_count("from_saved") == 5
        await publish_trades(two, 4)
        for client in clients:
            assert trade_ids([await client.next()]) == [4]
        await check_empty(two, clients=tuple(clients))


async def test_what_a_node_left_behind_is_had_once(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = await market_client(floors[0], "TRADES:A")
        await drain(floors[0], ann)
        twins = [RecoveringClient(node.server, "ann", "/market") for node in floors[1:]]
        for twin in twins:
            twin.pid, twin.offset = ann.pid, ann.offset
        await asyncio.gather(*(twin.connect() for twin in twins))
        assert sorted(twin.recovered for twin in twins) == [False, True]
        await check_empty(*floors[1:], clients=tuple(twins))


async def test_after_a_drain_who_did_not_see_the_last_is_somebody_new(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        before = ann.offset
        await publish_trades(one, 1)
        await one.until_caught_up()
        await drain(one, ann)
        assert ann.offset != before
        ann.offset = before
        assert await reconnect(ann, two) == []
        assert not ann.recovered
        await check_empty(two, clients=(ann,))


async def test_a_rolling_restart_brings_everybody_from_node_to_node(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis, 4) as floors:
        ann = await market_client(floors[0], "TRADES:A")
        for number, (node, other) in enumerate(itertools.pairwise(floors)):
            await drain(node, ann)
            await publish_trades(other, number)
            assert trade_ids(await reconnect(ann, other)) == [number]
            assert ann.recovered
        await ann.cut()
        await check_empty(floors[-1], clients=(ann,))


async def test_a_node_that_died_gives_nobody_back(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await ann.cut()
        await one.broker.stop()
        with shared_redis.client() as client:
            await until(
                lambda: client.pubsub_numsub(one.broker._subscriber._own_channel)[0][1] == 0
            )
        assert await reconnect(ann, two) == []
        assert not ann.recovered
        assert (two.recovery_count("not_had"), two.recovery_count("unanswered")) == (1, 0)
        await check_empty(two, clients=(ann,))
        await one.stop()


async def test_a_node_that_does_not_answer_delays_nobody_for_long(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.brokers.redis.recovery.handover._REPLY_TIMEOUT_SECONDS", 0.05)
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await ann.cut()
        one.broker.set_direct_handler(lambda _: None)
        assert await reconnect(ann, two) == []
        assert (ann.recovered, two.recovery_count("unanswered")) == (False, 1)
        await check_empty(one, two, clients=(ann,))


@pytest.mark.parametrize("gone", [True, False])
async def test_while_redis_is_away_everybody_is_let_in_anew_and_soon(
    gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.brokers.redis.recovery.handover._FETCH_TIMEOUT_SECONDS", 0.05)
    with redis_server() as redis:
        async with nodes(redis) as (one, two):
            ann = await market_client(one, "TRADES:A")
            await ann.cut()
            if gone:
                redis.kill()
            else:
                redis.pause()
            try:
                assert await reconnect(ann, two) == []
                assert (ann.recovered, two.recovery_count("unanswered")) == (False, 1)
            finally:
                if not gone:
                    redis.resume()
            await ann.cut()
            if gone:
                redis.start()
            for node in (one, two):
                await node.until_up()


async def test_in_a_cluster_a_client_is_back_too_and_a_node_that_has_ended_costs_a_little_time(
    shards_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.brokers.redis.recovery.handover._REPLY_TIMEOUT_SECONDS", 0.2)
    settings = {"broker.url": shards_url, "broker.prefix": f"crossing{next(_prefixes)}"}
    async with nodes(None, 3, **settings) as floors:
        ann = await market_client(floors[0], "TRADES:A")
        for number in range(4):
            await ann.cut()
            await publish_trades(floors[2], number)
            assert trade_ids(await reconnect(ann, floors[number % 2 + 1])) == [number]
            assert ann.recovered
        await drain(floors[2], ann)
        await publish_trades(floors[0], 9)
        assert trade_ids(await reconnect(ann, floors[1])) == [9]
        assert (floors[1].recovery_count("from_saved"), floors[1].recovery_count("unanswered")) == (
            1,
            1,
        )
        await check_empty(*floors[:2], clients=(ann,))


async def test_the_documented_rights_are_enough() -> None:
    rules = re.search(r"user floorcast on >PASSWORD (.*?)```", DOCS.read_text(), re.DOTALL)
    assert rules is not None
    with redis_server() as redis:
        with redis.client() as client:
            client.execute_command("ACL SETUSER floorcast on >p", *rules.group(1).split())  # type: ignore[no-untyped-call]
        url = redis.url.replace("unix://", "unix://floorcast:p@")
        async with nodes(redis, 3, **{"broker.url": url, "broker.prefix": "floorcast"}) as floors:
            ann = await market_client(floors[0], "TRADES:A")
            await ann.cut()
            for node in floors[1::-1]:
                await reconnect(ann, node)
                assert ann.recovered
                await ann.cut()
            await reconnect(ann, floors[1])
            await drain(floors[1], ann)
            await reconnect(ann, floors[2])
            assert ann.recovered
            await check_empty(floors[0], floors[2], clients=(ann,))
        with redis.client() as client:
            assert client.acl_log() == [], "nothing was refused"


@contextlib.asynccontextmanager
async def cut_during_handover(ann: RecoveringClient, node: Node) -> AsyncIterator[list[object]]:
    """Cut off again while it is brought to this node, which hears the others after the block."""
    handover: Any = node.server.server.handover
    held: list[object] = []
    node.broker.set_direct_handler(held.append)
    ann.node = node.server
    await ann.open()
    auth = {"token": node.server.token("ann"), "pid": ann.pid, "offset": ann.offset}
    ann.wire.send(f"40/market,{json.dumps(auth)}")
    await until(lambda: held)
    ann.wire.cut()
    await until(lambda: not node.server.residue()["sockets"])
    ann.client = None
    yield held
    node.broker.set_direct_handler(handover._on_message)
    # What others ask of it comes before what it has asked for.
    for each in reversed(held):
        handover._on_message(each)


@pytest.mark.parametrize("where", [0, 1, 2])
async def test_who_is_cut_off_again_on_the_way_to_another_node_is_back_wherever_it_comes(
    shared_redis: RedisServer, where: int
) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = await market_client(floors[0], "TRADES:A")
        await ann.cut()
        await publish_trades(floors[0], 1)
        async with cut_during_handover(ann, floors[1]) as held:
            coming = asyncio.create_task(reconnect(ann, floors[where]))
            if where == 1:
                await until(lambda: floors[1].server.residue()["sockets"])
            else:
                await until(lambda: len(held) == 2)
        assert trade_ids(await coming) == [1]
        assert ann.recovered
        await check_empty(*floors, clients=(ann,))


async def test_a_client_that_goes_while_it_is_brought_over_is_waited_for_and_leaves_nothing(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await ann.cut()
        async with cut_during_handover(ann, two):
            pass
        await until(lambda: two.server.residue()["tickets"])
        await check_empty(one, two, clients=())


async def test_a_session_is_had_back_on_its_own_node_alone(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = RecoveringClient(one.server, "ann", "/session")
        ann.auth = {"session_id": "room"}
        await ann.connect()
        await ann.cut()
        await reconnect(ann, two)
        assert not ann.recovered
        assert (two.recovery_count("from_node"), two.recovery_count("not_had")) == (0, 0), (
            "nobody was asked"
        )
        await ann.cut()


async def test_what_no_node_of_ours_has_said_is_counted_and_changes_nothing(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
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
                client.publish(one.broker._subscriber._own_channel.decode(), each)
        counters = one.server.server.counters
        await until(lambda: counters.total("broker.strange") == len(strange))
        await reconnect(ann, two)
        assert ann.recovered
        await check_empty(one, two, clients=(ann,))


@pytest.mark.parametrize("namespace", ["/market", "/session"])
async def test_who_is_new_on_a_node_and_has_heard_nothing_there_is_had_back(
    shared_redis: RedisServer, namespace: str
) -> None:
    async with nodes(shared_redis, 3) as floors:
        ann = RecoveringClient(floors[0].server, "ann", namespace)
        await ann.connect()
        await ann.cut()
        ann.pid = "lost"
        ann.node = floors[1].server
        await ann.open()
        # The welcome is lost, and with it the first offset of this node.
        await ann.send_connect({})
        assert (ann.recovered, ann.pid != "lost") == (False, True)
        await ann.cut()
        await reconnect(ann, floors[2 if namespace == "/market" else 1])
        assert ann.recovered
        await ann.cut()
