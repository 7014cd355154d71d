"""Sessions and notices over two real servers and one Redis: it is all one to their clients."""

import contextlib
import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client_sdk.contract import Scope
from server.brokers import RedisBroker, RedisPresence
from tests.kit.clients.session_client import SessionClient
from tests.kit.clock import ManualClock
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.server.in_process import RunningServer, running

DOCS = Path(__file__).parents[2] / "docs" / "redis.md"
MODERATOR = (Scope.SESSION_JOIN, Scope.SESSION_MODERATE)
_prefixes = itertools.count(1)


@contextlib.asynccontextmanager
async def two_nodes(
    redis: RedisServer, **settings: object
) -> AsyncIterator[tuple[RunningServer, RunningServer]]:
    """Two servers that share a Redis and the time."""
    clock = ManualClock()
    shared = {"broker.url": redis.url, "broker.prefix": f"nodes{next(_prefixes)}", **settings}
    async with running(shared, clock=clock) as one, running(shared, clock=clock) as two:
        for node in (one, two):
            broker = node.server.broker
            assert isinstance(broker, RedisBroker)
            await until(lambda broker=broker: broker._subscriber.is_up)
        yield one, two


async def pass_time(seconds: float, *nodes: RunningServer) -> None:
    """Let time pass for all nodes, in steps that they can see."""
    clock = nodes[0].clock
    while seconds > 0:
        clock.advance(min(1.0, seconds))
        seconds -= 1.0
        for node in nodes:
            node.server.tick()
            await node.server.sessions.sweep()
            assembly = node.server.presence
            assert isinstance(assembly, RedisPresence)
            await until(lambda assembly=assembly: assembly.is_idle)


@pytest.mark.behaviour("E4", "E6")
async def test_members_on_two_nodes_hear_each_other_come_speak_and_go(
    shared_redis: RedisServer,
) -> None:
    async with two_nodes(shared_redis) as (one, two):
        ann = await SessionClient.connect(one, "ann", "room")
        bob = await SessionClient.connect(two, "bob")
        reply = await bob.call("join", session_id="room", metadata={"title": "late"})
        assert (reply["participant_count"], reply["metadata"]) == (2, {})
        assert [each["user_id"] for each in reply["participants"]] == ["ann", "bob"]
        joined = await ann.next("user_joined")
        assert (joined["user_id"], joined["participant_count"]) == ("bob", 2)
        for member in (ann, bob):
            who = await member.call("participants", session_id="room")
            assert who["participant_count"] == 2
        sent = await bob.call("send", session_id="room", data={"text": "héllo"}, id="m1")
        again = await ann.call("send", session_id="room", data={"text": "hi"})
        assert (sent["seq"], again["seq"]) == (1, 2)
        for member in (ann, bob):
            heard = [await member.next("message") for _ in range(2)]
            assert [each["user_id"] for each in heard] == ["bob", "ann"]
        assert await ann.call("signal", session_id="room", data={"typing": True}) == {"ok": True}
        signal = await bob.next("signal")
        assert (signal["user_id"], signal["data"]) == ("ann", {"typing": True})
        assert (await bob.call("leave", session_id="room")) == {"ok": True}
        left = await ann.next("user_left")
        assert (left["user_id"], left["participant_count"]) == ("bob", 1)
        assert await bob.pending_events() == await ann.pending_events() == []
        ann.cut()
        bob.cut()


async def test_a_user_on_devices_of_two_nodes_is_one_participant(
    shared_redis: RedisServer,
) -> None:
    async with two_nodes(shared_redis) as (one, two):
        ann = await SessionClient.connect(one, "ann", "room")
        phone = await SessionClient.connect(one, "bob", "room")
        await ann.next("user_joined")
        desk = await SessionClient.connect(two, "bob", "room")
        who = await ann.call("participants", session_id="room")
        assert [(each["user_id"], each["connections"]) for each in who["participants"]] == [
            ("ann", 1),
            ("bob", 2),
        ]
        phone.leave()
        await until(lambda: len(one.server.sessions.memberships) == 1)
        desk.cut()
        await until(lambda: len(two.server.sessions.memberships) == 0)
        await pass_time(9, one, two)
        back = await SessionClient.connect(one, "bob", "room")
        await pass_time(20, one, two)
        assert await ann.pending_events() == await back.pending_events() == [], (
            "nobody left, nobody came"
        )
        back.leave()
        assert (await ann.next("user_left"))["participant_count"] == 1
        for member in (ann, phone, back):
            member.cut()


async def test_a_moderator_on_one_node_sends_away_and_closes_on_the_other(
    shared_redis: RedisServer,
) -> None:
    async with two_nodes(shared_redis) as (one, two):
        chair = await SessionClient.connect(one, "chair", "room", scopes=MODERATOR)
        bob, cid = [await SessionClient.connect(two, user, "room") for user in ("bob", "cid")]
        phone = await SessionClient.connect(one, "bob", "room")
        for _ in range(2):
            await chair.next("user_joined")
        reply = await chair.call("kick", session_id="room", user_id="bob")
        assert reply == {"ok": True, "connections": 2}
        for member in (bob, phone):
            assert (await member.next("session_closed"))["reason"] == "kicked"
            reply = await member.call("send", session_id="room", data={})
            assert reply["error"]["code"] == "session.not_joined"
        for member in (chair, cid):
            assert (await member.next("user_left"))["user_id"] == "bob"
        await bob.call("join", session_id="room")
        assert (await cid.next("user_joined"))["participant_count"] == 3
        assert await chair.call("close", session_id="room") == {"ok": True, "connections": 3}
        for member in (chair, bob, cid):
            assert (await member.next("session_closed"))["reason"] == "closed"
            for event in ("join", "history"):
                reply = await member.call(event, session_id="room")
                assert reply["error"]["code"] == "session.closed"
        for member in (chair, bob, cid, phone):
            member.cut()
        for node in (one, two):
            await until(lambda node=node: not node.residue()["channels"])


@pytest.mark.behaviour("D14")
async def test_a_notice_reaches_every_device_on_any_node_and_one_settles_it(
    shared_redis: RedisServer,
) -> None:
    async with two_nodes(shared_redis) as (one, two):
        phone, desk = (
            await SessionClient.connect(one, "bob"),
            await SessionClient.connect(two, "bob"),
        )
        other = await SessionClient.connect(two, "ann")
        notify = one.server.notifications.notify
        hello = await notify("default", "bob", "hello", {"plain": True})
        first, again = [
            await notify("default", "bob", "margin", {"level": 1}, critical=True, identifier="n1")
            for _ in range(2)
        ]
        assert (hello.reached, first.reached, again.reached) == (None, None, 0)
        for member in (phone, desk):
            heard = [await member.next("notification") for _ in range(2)]
            assert [(each["event"], each["critical"]) for each in heard] == [
                ("hello", False),
                ("margin", True),
            ]
        late = await SessionClient.connect(two, "bob")
        assert (await late.next("notification"))["id"] == "n1"
        desk.acknowledge("n1")
        for node in (one, two):
            board = node.server.notifications.store
            await until(lambda board=board: not board.pending("default", "bob"))
        await two.server.notifications.notify(
            "default", "bob", "margin", {"level": 1}, critical=True, identifier="n1"
        )
        latest = await SessionClient.connect(one, "bob")
        for member in (phone, desk, late, latest, other):
            assert await member.pending_events() == []
            member.cut()


async def test_a_critical_notice_outlives_the_nodes(shared_redis: RedisServer) -> None:
    prefix = {"broker.url": shared_redis.url, "broker.prefix": f"nodes{next(_prefixes)}"}
    async with running(prefix) as node:
        notify = node.server.notifications.notify
        for number in range(3):
            await notify(
                "default", "bob", "n", {"is": number}, critical=True, identifier=f"{number}"
            )
    async with running(prefix) as node:
        board = node.server.notifications.store
        await until(lambda: len(board.pending("default", "bob")) == 3)
        bob = await SessionClient.connect(node, "bob")
        heard = [await bob.next("notification") for _ in range(3)]
        assert [each["data"]["is"] for each in heard] == [0, 1, 2]
        bob.acknowledge("1")
        await until(lambda: len(board.pending("default", "bob")) == 2)
        bob.cut()
    async with running(prefix) as node:
        board = node.server.notifications.store
        await until(lambda: len(board.pending("default", "bob")) == 2)
        again = await node.server.notifications.notify(
            "default", "bob", "n", {"is": 1}, critical=True, identifier="1"
        )
        assert again.reached == 0
        assert [each.id for each in board.pending("default", "bob")] == ["0", "2"]


async def test_the_documented_rights_are_enough_for_sessions_and_notices() -> None:
    text = DOCS.read_text()
    rules = re.search(r"user floorcast on >PASSWORD (.*?)```", text, re.DOTALL)
    assert rules is not None
    with redis_server() as redis:
        with redis.client() as client:
            client.execute_command("ACL SETUSER floorcast on >p", *rules.group(1).split())  # type: ignore[no-untyped-call]
        url = redis.url.replace("unix://", "unix://floorcast:p@")
        clock, same = ManualClock(), {"broker.url": url, "session.retention_seconds": 5}
        async with running(same, clock=clock) as gone:
            dora = await SessionClient.connect(gone, "dora", "another")
            dora.cut()
        async with running(same, clock=clock) as node:
            broker = node.server.broker
            assert isinstance(broker, RedisBroker)
            await until(lambda: broker._subscriber.is_up)
            chair = await SessionClient.connect(node, "chair", "room", scopes=MODERATOR)
            bob, cid = [await SessionClient.connect(node, user, "room") for user in ("bob", "cid")]
            await chair.call("kick", session_id="room", user_id="bob")
            cid.cut()
            await until(lambda: len(node.server.sessions.memberships) == 1)
            notify = node.server.notifications.notify
            await notify("default", "bob", "margin", {}, critical=True, identifier="n1")
            await bob.next("notification")
            bob.acknowledge("n1")
            await pass_time(12, node)
            assert (await chair.next("user_left"))["user_id"] == "bob"
            assert (await chair.next("user_left"))["user_id"] == "cid"
            assert (await chair.call("close", session_id="room"))["ok"]
            await pass_time(12, node)
            await until(lambda: node.server.presence.session_count == 0)
            for member in (chair, bob):
                member.cut()
        with redis.client() as client:
            assert client.acl_log() == [], "nothing was refused"
