"""Test connection state recovery on another node: nothing lost, nothing leaked."""

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
from server.core.errors import FloorcastError
from server.core.log.entries import Position
from server.core.recovery.connection_state import ConnectionState
from tests.kit.checksum import checksum
from tests.kit.clients.recovering import (
    Event,
    RecoveringClient,
    market_client,
    publish_trades,
    trade_ids,
)
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.server.in_process import PRICE
from tests.kit.server.nodes import Node, nodes

DOCS = Path(__file__).parents[2] / "docs" / "redis.md"


async def reconnect(client: RecoveringClient, node: Node, **auth: object) -> list[Event]:
    """Reconnect to this node."""
    client.node = node
    return await client.connect(**auth)


async def publish_price(node: Node, last: int) -> None:
    await node.server.market.publishing.publish("PRICE:A", {**PRICE, "last": str(last)})


async def check_empty(*cluster: Node, clients: tuple[RecoveringClient, ...]) -> None:
    """Cut all clients, pass the recovery window, and check that nothing is left."""
    for client in clients:
        if client.client is not None:
            await client.cut()
    cluster[0].clock.advance(121)
    for node in cluster:
        node.server.tick()
        await node.server.recovery.sweep()
        await node.until_empty()
        assert node.server.delivery.hub._registry.parked == {}
        assert node.server.market.subscriptions._parked == set()


async def test_client_recovers_on_any_node_repeatedly(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis, 3) as cluster:
        ann = await market_client(cluster[0], "TRADES:A")
        sid, pid = ann.sid, ann.pid
        number = 0
        for turn in (1, 0, 1, 1, 2, 0, 2, 1):
            await ann.cut()
            await publish_trades(cluster[number % 3], number + 1, number + 2)
            await cluster[turn].until_caught_up()
            missed = await reconnect(ann, cluster[turn])
            assert (ann.recovered, ann.sid, ann.pid) == (True, sid, pid), turn
            assert trade_ids(missed) == [number + 1, number + 2]
            await publish_trades(cluster[(turn + 1) % 3], number + 3)
            assert trade_ids([await ann.next()]) == [number + 3]
            number += 3
        assert sum(each.recovery_count("from_node") for each in cluster) == 7, (
            "one reconnect was to the same node"
        )
        await check_empty(*cluster, clients=(ann,))
        with shared_redis.client() as client:
            prefix = cluster[0].prefix
            await until(lambda: not client.keys(f"{prefix}:recovery:*"))


async def publish_book(node: Node, data: dict[str, Any]) -> None:
    """Publish book A; its first message is a snapshot."""
    head = await node.server.backend.broker.head("ORDERBOOK:A")
    kind = "update" if head.seq else "snapshot"
    await node.server.market.publishing.publish("ORDERBOOK:A", data, kind=kind)


async def test_merged_topics_recover_on_another_node(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "PRICE:A", "ORDERBOOK:A", "TRADES:A")
        await ann.call("subscribe", topics=["PRICE:B"], interval_ms=1000)
        sides: tuple[dict[str, str], dict[str, str]] = ({}, {})

        async def book(node: Node, *bids: tuple[str, str]) -> None:
            data = {"bids": list(bids), "asks": [("900", "1")]}
            await publish_book(node, data)

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
        other = await market_client(two, "ORDERBOOK:A")
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
        await check_empty(one, two, clients=(ann, other))


async def test_recovery_replays_only_unseen_events(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await publish_trades(one, 1, 2, 3)
        await ann.next()
        await ann.cut()
        await publish_trades(two, 4)
        assert trade_ids(await reconnect(ann, two)) == [2, 3, 4]
        await check_empty(one, two, clients=(ann,))


async def test_client_cut_right_after_recovery_loses_nothing(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis, 3) as cluster:
        ann = await market_client(cluster[0], "TRADES:A")
        await ann.cut()
        await publish_trades(cluster[0], 1)
        for node in (cluster[1], cluster[1], cluster[2], cluster[0]):
            ann.node = node
            await ann.connect_and_cut()
        assert trade_ids(await reconnect(ann, cluster[1])) == [1]
        assert ann.recovered
        await check_empty(*cluster, clients=(ann,))


async def test_half_open_connection_closes_on_remote_recovery(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await publish_trades(one, 1)
        old, ann.client = ann.wire, None
        assert trade_ids(await reconnect(ann, two)) == [1]
        assert ann.recovered
        await old.until_closed()
        assert one.residue()["sockets"] == one.residue()["tickets"] == 0
        await check_empty(one, two, clients=(ann,))


@pytest.mark.parametrize("is_running", [True, False])
async def test_stolen_pid_recovers_nothing_and_stays_usable(
    shared_redis: RedisServer, is_running: bool
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        if is_running:
            await ann.cut()
        else:
            await one.stop()
            while (await ann.next())[0] != "goodbye":
                pass
            await ann.wire.until_closed()
        await publish_trades(two, 1)
        impostors = [
            RecoveringClient(two, "eve", "/market"),
            RecoveringClient(two, "ann", "/market", org="acme"),
            RecoveringClient(two, "ann", "/session"),
        ]
        for impostor in impostors:
            impostor.pid, impostor.offset = ann.pid, ann.offset
            assert await impostor.connect() == []
            assert not impostor.recovered
            assert ann.pid not in (None, impostor.pid)
            assert impostor.sid != ann.sid
        assert trade_ids(await reconnect(ann, two)) == [1]
        assert ann.recovered
        await check_empty(two, clients=(ann, *impostors))


@pytest.mark.parametrize("forged", ["", "zzzz-1", "TAG-999999999", "TAG-"])
async def test_forged_offset_recovers_nothing(shared_redis: RedisServer, forged: str) -> None:
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
async def test_forged_pid_starts_a_new_connection(shared_redis: RedisServer, forged: str) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        assert ann.pid is not None
        await ann.cut()
        eve = RecoveringClient(two, "ann", "/market")
        eve.pid, eve.offset = forged.replace("NODE", ann.pid.partition(".")[0]), ann.offset
        assert await eve.connect() == []
        assert not eve.recovered
        await reconnect(ann, two)
        assert ann.recovered
        await check_empty(one, two, clients=(ann, eve))


async def test_simultaneous_resumes_on_two_nodes_recover_once(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, 3) as cluster:
        ann = await market_client(cluster[0], "TRADES:A")
        await ann.cut()
        await publish_trades(cluster[0], 1)
        twins = [RecoveringClient(node, "ann", "/market") for node in cluster[1:]]
        for twin in twins:
            twin.pid, twin.offset = ann.pid, ann.offset
        missed = await asyncio.gather(*(twin.connect() for twin in twins))
        assert sorted(twin.recovered for twin in twins) == [False, True]
        for twin, events in zip(twins, missed, strict=True):
            assert trade_ids(events) == ([1] if twin.recovered else [])
            assert (twin.sid == ann.sid) == twin.recovered
        await check_empty(*cluster, clients=tuple(twins))


async def test_bad_token_leaves_the_ticket_to_its_owner(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await ann.cut()
        await publish_trades(one, 1)
        bad_tokens = [None, "nonsense", two.token(ttl_seconds=-11), two.token(secret="x" * 40)]
        for token in bad_tokens:
            with pytest.raises(PermissionError, match=r"auth\."):
                await reconnect(ann, two, token=token)
            ann.wire.cut()
        assert trade_ids(await reconnect(ann, two)) == [1]
        assert ann.recovered
        await check_empty(one, two, clients=(ann,))


@pytest.mark.parametrize("narrow", [{"symbols": ["B*"]}, {"scopes": [Scope.SESSION_JOIN]}])
async def test_narrower_token_does_not_recover(
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


async def test_client_does_not_recover_after_the_window(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await ann.cut()
        await publish_trades(one, 1)
        one.clock.advance(120)
        assert await reconnect(ann, two) == []
        assert not ann.recovered
        await check_empty(one, two, clients=(ann,))


async def test_incomplete_history_recovers_nothing(
    shared_redis: RedisServer,
) -> None:
    limits = {"history.messages": 3, "delivery.backlog_messages": 3}
    for count, recovered in ((3, True), (4, False)):
        async with nodes(shared_redis, **limits) as (one, two):
            ann = await market_client(one, "TRADES:A", "TRADES:B")
            await ann.cut()
            await publish_trades(one, *range(count))
            await publish_trades(one, 9, symbol="B")
            missed = await reconnect(ann, two)
            assert ann.recovered == recovered
            assert trade_ids(missed) == ([*range(count), 9] if recovered else [])
            await check_empty(one, two, clients=(ann,))


async def test_private_stream_recovers_and_stays_private(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        ann, eve = [await market_client(one, "BOT_STATUS", user=user) for user in ("ann", "eve")]
        await ann.cut()
        await eve.cut()
        publish = two.server.market.publishing.publish
        for user in ("ann", "eve"):
            await publish("BOT_STATUS", {"bot_id": "b", "status": user}, user=user)
        for client in (ann, eve):
            [(event, body)] = await reconnect(client, two)
            assert (event, body["data"]["status"]) == ("bot_status", client.user)
        await check_empty(one, two, clients=(ann, eve))


async def test_recovered_client_gets_a_status_only_if_it_changed(
    shared_redis: RedisServer,
) -> None:
    stale = {"market.price_stale_seconds": 10}
    async with nodes(shared_redis, **stale) as (one, two):
        ann = await market_client(one, "PRICE:A")
        other = await market_client(two, "PRICE:A")
        await publish_price(one, 1)
        await ann.next()
        await other.next()
        await ann.cut()
        assert await reconnect(ann, two) == [], "the feed is live, as before"
        await ann.cut()
        one.clock.advance(11)
        for node in (one, two):
            node.server.tick()
        [(event, body)] = await reconnect(ann, one)
        assert (event, body["state"]) == ("status", "STALE")
        await ann.cut()
        assert await reconnect(ann, two) == [], "the client has the status already"
        await check_empty(one, two, clients=(ann, other))


@pytest.mark.parametrize("topic", ["TRADES:A", "PRICE:A", "ORDERBOOK:A"])
async def test_recovery_waits_for_a_lagging_node(shared_redis: RedisServer, topic: str) -> None:
    async with nodes(shared_redis) as (one, two):

        async def publish() -> None:
            await publish_trades(one, 1)
            await publish_price(one, 1)
            await publish_book(one, {"bids": [], "asks": []})

        ann, other = await market_client(one, topic), await market_client(two, topic)
        await publish()
        for client in (ann, other):
            assert (await client.next())[1]["seq"] == 1
        held: list[tuple[bytes, object]] = []
        pubsub = two.broker._subscriber._pubsub
        deliver, pubsub._on_message = pubsub._on_message, lambda *message: held.append(message)
        await publish()
        assert (await ann.next())[1]["seq"] == 2
        await ann.cut()
        await publish()
        reconnecting = asyncio.create_task(reconnect(ann, two))
        await until(
            lambda: any(
                each.position_waiters
                for each in two.broker._subscriber._gap_detector._channels.values()
            )
        )
        pubsub._on_message = deliver
        for message in held:
            deliver(*message)
        missed = await reconnecting
        assert ann.recovered
        await publish()
        bodies = [body for _, body in (*missed, await ann.next())]
        assert [(body["prev"], body["seq"]) for body in bodies] == [(2, 3), (3, 4)]
        await check_empty(one, two, clients=(ann, other))


async def test_lost_history_yields_a_snapshot_or_no_recovery(
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
            with shared_redis.client() as client:
                client.delete(*client.keys(f"{one.prefix}:{{{topic}}}:*"))
            await publish_price(two, 2)
            await publish_trades(two, 2)
            missed = await reconnect(ann, two)
            assert ann.recovered == recovered
            assert [(body["type"], body["seq"]) for _, body in missed] == (
                [("snapshot", 1)] if recovered else []
            )
            await check_empty(one, two, clients=(ann,))


def other_user(state: ConnectionState, _: str) -> ConnectionState:
    return replace(state, user_id="bob")


def taken_connection_id(state: ConnectionState, taken: str) -> ConnectionState:
    return replace(state, connection_id=taken)


def other_epoch(state: ConnectionState, _: str) -> ConnectionState:
    first, second = state.topics
    return replace(state, topics=(replace(first, position=Position("another", 1)), second))


def future_position(state: ConnectionState, _: str) -> ConnectionState:
    return changed(state, position=replace(state.topics[1].position, seq=9))


def unknown_interval(state: ConnectionState, _: str) -> ConnectionState:
    return changed(state, interval_ms=7)


def invalid_topic(state: ConnectionState, _: str) -> ConnectionState:
    return changed(state, topic="TRADES")


def too_many_topics(state: ConnectionState, _: str) -> ConnectionState:
    return replace(state, topics=state.topics[:1] * 1001)


def changed(state: ConnectionState, **fields: Any) -> ConnectionState:
    first, second = state.topics
    return replace(state, topics=(first, replace(second, **fields)))


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
async def test_invalid_connection_state_is_not_imported(
    shared_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    forge: Callable[[ConnectionState, str], ConnectionState],
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A", "PRICE:A")
        other = await market_client(two, "TRADES:C")
        await ann.cut()
        handover: Any = one.server.backend.handover
        export = handover._export
        monkeypatch.setattr(handover, "_export", lambda each: forge(export(each), other.sid))
        await publish_trades(one, 1)
        assert await reconnect(ann, two) == []
        assert not ann.recovered
        assert two.residue()["channels"] == 1
        await publish_trades(one, 2, symbol="C")
        assert trade_ids([await other.next()]) == [2]
        await check_empty(one, two, clients=(ann, other))


async def test_failing_broker_aborts_recovery_and_leaves_nothing(
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


async def test_lost_subscribe_reply_is_replaced_by_a_snapshot(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        await publish_price(one, 1)
        ann = await market_client(one, "PRICE:A")
        await ann.cut()
        [(event, body)] = await reconnect(ann, two)
        assert (event, body["type"], body["seq"]) == ("price", "snapshot", 1)
        await check_empty(one, two, clients=(ann,))


# --- a stopped node


async def drain(node: Node, *clients: RecoveringClient) -> None:
    """Stop the node, and read each client's goodbye."""
    ending = asyncio.create_task(node.stop())
    for client in clients:
        while (await client.next())[0] != "goodbye":
            pass
        await client.wire.until_closed()
        client.client = None
    await ending


async def test_drained_clients_recover_on_another_node(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        clients = [await market_client(one, "TRADES:A", "PRICE:A", user=f"u{n}") for n in range(5)]
        await publish_trades(one, 1)
        await one.until_caught_up()
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


async def test_saved_state_of_a_drained_node_is_used_once(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, 3) as cluster:
        ann = await market_client(cluster[0], "TRADES:A")
        await drain(cluster[0], ann)
        twins = [RecoveringClient(node, "ann", "/market") for node in cluster[1:]]
        for twin in twins:
            twin.pid, twin.offset = ann.pid, ann.offset
        await asyncio.gather(*(twin.connect() for twin in twins))
        assert sorted(twin.recovered for twin in twins) == [False, True]
        await check_empty(*cluster[1:], clients=tuple(twins))


async def test_drained_client_with_an_old_offset_does_not_recover(
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


async def test_rolling_restart_moves_a_client_from_node_to_node(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis, 4) as cluster:
        ann = await market_client(cluster[0], "TRADES:A")
        for number, (node, other) in enumerate(itertools.pairwise(cluster)):
            await drain(node, ann)
            await publish_trades(other, number)
            assert trade_ids(await reconnect(ann, other)) == [number]
            assert ann.recovered
        await ann.cut()
        await check_empty(cluster[-1], clients=(ann,))


async def test_dead_node_hands_over_nothing(shared_redis: RedisServer) -> None:
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


async def test_unresponsive_node_delays_a_connect_only_briefly(
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


@pytest.mark.parametrize("is_killed", [True, False])
async def test_clients_connect_anew_while_redis_is_unavailable(
    is_killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.brokers.redis.recovery.handover._FETCH_TIMEOUT_SECONDS", 0.05)
    with redis_server() as redis:
        async with nodes(redis) as (one, two):
            ann = await market_client(one, "TRADES:A")
            await ann.cut()
            if is_killed:
                redis.kill()
            else:
                redis.pause()
            try:
                assert await reconnect(ann, two) == []
                assert (ann.recovered, two.recovery_count("unanswered")) == (False, 1)
            finally:
                if not is_killed:
                    redis.resume()
            await ann.cut()
            if is_killed:
                redis.start()
            for node in (one, two):
                await node.until_up()


async def test_too_large_connection_is_refused_at_once(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.brokers.redis.recovery.codec.MAX_BYTES", 600)
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, *(f"TRADES:{symbol}" for symbol in "ABCDEFGH"))
        await ann.cut()
        assert await reconnect(ann, two) == []
        assert not ann.recovered
        assert (two.recovery_count("not_had"), two.recovery_count("unanswered")) == (1, 0)
        await check_empty(one, two, clients=(ann,))


async def test_client_recovers_with_a_redis_cluster(
    shards_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(None, 3, **{"broker.url": shards_url}) as cluster:
        ann = await market_client(cluster[0], "TRADES:A")
        for number in range(4):
            await ann.cut()
            await publish_trades(cluster[2], number)
            assert trade_ids(await reconnect(ann, cluster[number % 2 + 1])) == [number]
            assert ann.recovered
        await drain(cluster[2], ann)
        await publish_trades(cluster[0], 9)
        # Only now: a busy machine may not answer in this time.
        monkeypatch.setattr("server.brokers.redis.recovery.handover._REPLY_TIMEOUT_SECONDS", 0.2)
        assert trade_ids(await reconnect(ann, cluster[1])) == [9]
        assert cluster[1].recovery_count("from_saved") == 1
        assert cluster[1].recovery_count("unanswered") == 1
        await check_empty(*cluster[:2], clients=(ann,))


async def test_documented_acl_is_enough_for_recovery() -> None:
    rules = re.search(r"user floorcast on >PASSWORD (.*?)```", DOCS.read_text(), re.DOTALL)
    assert rules is not None
    with redis_server() as redis:
        with redis.client() as client:
            client.execute_command("ACL SETUSER floorcast on >p", *rules.group(1).split())  # type: ignore[no-untyped-call]
        url = redis.url.replace("unix://", "unix://floorcast:p@")
        async with nodes(redis, 3, **{"broker.url": url, "broker.prefix": "floorcast"}) as cluster:
            ann = await market_client(cluster[0], "TRADES:A")
            await ann.cut()
            for node in cluster[1::-1]:
                await reconnect(ann, node)
                assert ann.recovered
                await ann.cut()
            await reconnect(ann, cluster[1])
            await drain(cluster[1], ann)
            await reconnect(ann, cluster[2])
            assert ann.recovered
            await check_empty(cluster[0], cluster[2], clients=(ann,))
        with redis.client() as client:
            assert client.acl_log() == [], "Redis refused no command"


@contextlib.asynccontextmanager
async def cut_during_handover(ann: RecoveringClient, node: Node) -> AsyncIterator[list[object]]:
    """Cut the client during its handover; the node gets the replies after the block."""
    handover: Any = node.server.backend.handover
    held: list[object] = []
    node.broker.set_direct_handler(held.append)
    ann.node = node
    await ann.open()
    auth = {"token": node.token("ann"), "pid": ann.pid, "offset": ann.offset}
    ann.wire.send(f"40/market,{json.dumps(auth)}")
    await until(lambda: held)
    ann.wire.cut()
    await until(lambda: not node.residue()["sockets"])
    ann.client = None
    yield held
    node.broker.set_direct_handler(handover._on_message)
    # Requests of other nodes come before replies to its own.
    for each in reversed(held):
        handover._on_message(each)


@pytest.mark.parametrize("target", [0, 1, 2])
async def test_client_cut_during_handover_recovers_on_any_node(
    shared_redis: RedisServer, target: int
) -> None:
    async with nodes(shared_redis, 3) as cluster:
        ann = await market_client(cluster[0], "TRADES:A")
        await ann.cut()
        await publish_trades(cluster[0], 1)
        async with cut_during_handover(ann, cluster[1]) as held:
            reconnecting = asyncio.create_task(reconnect(ann, cluster[target]))
            if target == 1:
                await until(lambda: cluster[1].residue()["sockets"])
            else:
                await until(lambda: len(held) == 2)
        assert trade_ids(await reconnecting) == [1]
        assert ann.recovered
        await check_empty(*cluster, clients=(ann,))


async def test_client_cut_during_handover_is_parked_on_the_new_node(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await ann.cut()
        async with cut_during_handover(ann, two):
            pass
        await until(lambda: two.residue()["tickets"])
        await check_empty(one, two, clients=())


async def test_failed_import_is_counted_even_if_the_client_has_gone(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a test")

    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await ann.cut()
        monkeypatch.setattr(two.server.market.recovery, "import_parked", fail)
        async with cut_during_handover(ann, two):
            pass
        await until(lambda: two.server.counters.total("tasks.failed"))
        await check_empty(one, two, clients=())


async def test_foreign_handover_messages_are_counted_and_ignored(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await market_client(one, "TRADES:A")
        await ann.cut()
        foreign = [
            b"x",
            b"{}",
            b'{"v":2,"answer":1,"luggage":null}',
            b'{"v":1,"answer":"1","luggage":null}',
            b'{"v":1,"answer":1,"luggage":{"connection_id":"c"}}',
            b'{"v":1,"ask":1,"node":"n"}',
            b'{"v":1,"answer":1,"luggage":null}' + b" " * 300_000,
        ]
        with shared_redis.client() as client:
            for each in foreign:
                client.publish(one.broker._subscriber._own_channel.decode(), each)
        counters = one.server.counters
        await until(lambda: counters.total("broker.strange") == len(foreign))
        await reconnect(ann, two)
        assert ann.recovered
        await check_empty(one, two, clients=(ann,))


@pytest.mark.parametrize("namespace", ["/market", "/session"])
async def test_client_without_a_welcome_recovers(shared_redis: RedisServer, namespace: str) -> None:
    async with nodes(shared_redis, 3) as cluster:
        ann = RecoveringClient(cluster[0], "ann", namespace)
        await ann.connect()
        await ann.cut()
        ann.pid = "lost"
        ann.node = cluster[1]
        await ann.open()
        # The welcome with the node's first offset is lost.
        await ann.send_connect({})
        assert (ann.recovered, ann.pid != "lost") == (False, True)
        await ann.cut()
        await reconnect(ann, cluster[2])
        assert ann.recovered
        await ann.cut()
