"""Test sessions and notices over two real servers and one Redis."""

import asyncio
import re
from pathlib import Path

import pytest

from client_sdk.contract import Scope
from tests.kit.clients.session_client import SessionClient
from tests.kit.patience import until, until_awaited
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.server.in_process import RunningServer
from tests.kit.server.nodes import nodes, pass_time

DOCS = Path(__file__).parents[2] / "docs" / "redis.md"
MODERATOR = (Scope.SESSION_JOIN, Scope.SESSION_MODERATE)


@pytest.mark.behaviour("E4", "E6")
async def test_members_on_two_nodes_see_joins_messages_and_leaves(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await SessionClient.connect(one, "ann", "room")
        bob = await SessionClient.connect(two, "bob")
        reply = await bob.call("join", session_id="room", metadata={"title": "late"})
        assert (reply["participant_count"], reply["metadata"]) == (2, {})
        assert [each["user_id"] for each in reply["participants"]] == ["ann", "bob"]
        joined = await ann.next("user_joined")
        assert (joined["user_id"], joined["participant_count"]) == ("bob", 2)
        for member in (ann, bob):
            reply = await member.call("participants", session_id="room")
            assert reply["participant_count"] == 2
        sent = await bob.call("send", session_id="room", data={"text": "héllo"}, id="m1")
        second = await ann.call("send", session_id="room", data={"text": "hi"})
        assert (sent["seq"], second["seq"]) == (1, 2)
        for member in (ann, bob):
            messages = [await member.next("message") for _ in range(2)]
            assert [each["user_id"] for each in messages] == ["bob", "ann"]
        assert await ann.call("signal", session_id="room", data={"typing": True}) == {"ok": True}
        signal = await bob.next("signal")
        assert (signal["user_id"], signal["data"]) == ("ann", {"typing": True})
        assert (await bob.call("leave", session_id="room")) == {"ok": True}
        left = await ann.next("user_left")
        assert (left["user_id"], left["participant_count"]) == ("bob", 1)
        assert await bob.pending_events() == await ann.pending_events() == []
        ann.cut()
        bob.cut()


async def test_user_on_two_nodes_is_one_participant(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        ann = await SessionClient.connect(one, "ann", "room")
        phone = await SessionClient.connect(one, "bob", "room")
        await ann.next("user_joined")
        desk = await SessionClient.connect(two, "bob", "room")
        reply = await ann.call("participants", session_id="room")
        assert [(each["user_id"], each["connections"]) for each in reply["participants"]] == [
            ("ann", 1),
            ("bob", 2),
        ]
        phone.leave()
        await until(lambda: len(one.server.sessions.service.memberships) == 1)
        desk.cut()
        await until(lambda: len(two.server.sessions.service.memberships) == 0)
        await pass_time(9, one, two)
        back = await SessionClient.connect(one, "bob", "room")
        await pass_time(20, one, two)
        assert await ann.pending_events() == await back.pending_events() == [], (
            "no leave and no join is announced"
        )
        back.leave()
        assert (await ann.next("user_left"))["participant_count"] == 1
        for member in (ann, phone, back):
            member.cut()


async def test_moderator_kicks_and_closes_across_nodes(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
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
async def test_notice_reaches_devices_on_any_node_until_acknowledged(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        phone, desk = (
            await SessionClient.connect(one, "bob"),
            await SessionClient.connect(two, "bob"),
        )
        other = await SessionClient.connect(two, "ann")
        notify = one.server.sessions.notifications.notify
        hello = await notify("default", "bob", "hello", {"plain": True})
        first, repeated = [
            await notify("default", "bob", "margin", {"level": 1}, critical=True, identifier="n1")
            for _ in range(2)
        ]
        assert (hello.reached, first.reached, repeated.reached) == (None, None, 0)
        for member in (phone, desk):
            notices = [await member.next("notification") for _ in range(2)]
            assert [(each["event"], each["critical"]) for each in notices] == [
                ("hello", False),
                ("margin", True),
            ]
        late = await SessionClient.connect(two, "bob")
        assert (await late.next("notification"))["id"] == "n1"
        desk.acknowledge("n1")
        for node in (one, two):
            await until_pending(node, 0)
        await two.server.sessions.notifications.notify(
            "default", "bob", "margin", {"level": 1}, critical=True, identifier="n1"
        )
        latest = await SessionClient.connect(one, "bob")
        for member in (phone, desk, late, latest, other):
            assert await member.pending_events() == []
            member.cut()


async def until_pending(node: RunningServer, count: int) -> None:
    """Wait until bob has so many unacknowledged notices at a node."""

    async def is_reached() -> bool:
        return len(await pending_ids(node)) == count

    await until_awaited(is_reached)


async def pending_ids(node: RunningServer) -> list[str]:
    found = node.server.backend.notices.pending("default", "bob")
    assert isinstance(found, asyncio.Future)
    return [each.id for each in await found]


async def test_critical_notice_survives_node_restarts(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, 1) as [node]:
        same = {"broker.prefix": node.prefix}
        notify = node.server.sessions.notifications.notify
        for number in range(3):
            await notify(
                "default", "bob", "n", {"is": number}, critical=True, identifier=f"{number}"
            )
    async with nodes(shared_redis, 1, **same) as [node]:
        await until_pending(node, 3)
        bob = await SessionClient.connect(node, "bob")
        notices = [await bob.next("notification") for _ in range(3)]
        assert [each["data"]["is"] for each in notices] == [0, 1, 2]
        bob.acknowledge("1")
        await until_pending(node, 2)
        bob.cut()
    async with nodes(shared_redis, 1, **same) as [node]:
        await until_pending(node, 2)
        repeated = await node.server.sessions.notifications.notify(
            "default", "bob", "n", {"is": 1}, critical=True, identifier="1"
        )
        assert repeated.reached == 0
        assert await pending_ids(node) == ["0", "2"]


async def test_notice_posted_while_a_node_receives_nothing_comes_once(
    shared_redis: RedisServer,
) -> None:
    async with nodes(shared_redis) as (one, two):
        bob = await SessionClient.connect(one, "bob")
        notify = two.server.sessions.notifications.notify
        await notify("default", "bob", "n", {}, critical=True, identifier="before")
        assert (await bob.next("notification"))["id"] == "before"
        with shared_redis.client() as client:
            client.client_kill_filter(_type="pubsub")
        await notify("default", "bob", "n", {}, critical=True, identifier="meanwhile")
        assert (await bob.next("notification"))["id"] == "meanwhile"
        await one.until_up()
        await notify("default", "bob", "n", {}, critical=True, identifier="after")
        assert (await bob.next("notification"))["id"] == "after"
        assert await bob.pending_events() == []
        bob.cut()


async def test_notice_that_makes_room_is_deleted_from_redis(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, **{"shares.notices_per_org": 2}) as (one, two):
        notify = one.server.sessions.notifications.notify
        await notify("other", "ann", "n", {}, critical=True, identifier="kept")
        for number in range(5):
            await notify("default", f"user{number}", "n", {}, critical=True, identifier="n")
        with shared_redis.client() as client:

            def stored() -> set[bytes | str]:
                return set(client.hkeys(f"{one.prefix}:{{notices}}:waiting")) - {b"#"}

            def is_settled() -> bool:
                for node in (one, two):
                    node.pass_time(2.5)
                return len(stored()) == 3

            await until(is_settled)
            assert stored() == {
                b'["other","ann","kept"]',
                b'["default","user3","n"]',
                b'["default","user4","n"]',
            }


async def test_documented_acl_is_enough_for_sessions_and_notices() -> None:
    text = DOCS.read_text()
    rules = re.search(r"user floorcast on >PASSWORD (.*?)```", text, re.DOTALL)
    assert rules is not None
    with redis_server() as redis:
        with redis.client() as client:
            client.execute_command("ACL SETUSER floorcast on >p", *rules.group(1).split())  # type: ignore[no-untyped-call]
        url = redis.url.replace("unix://", "unix://floorcast:p@")
        settings = {
            "broker.url": url,
            "broker.prefix": "floorcast",
            "session.retention_seconds": 5,
        }
        async with nodes(redis, 1, **settings) as [node]:
            dora = await SessionClient.connect(node, "dora", "another")
            dora.cut()
        async with nodes(redis, 1, **settings) as [node]:
            chair = await SessionClient.connect(node, "chair", "room", scopes=MODERATOR)
            bob, cid = [await SessionClient.connect(node, user, "room") for user in ("bob", "cid")]
            await chair.call("kick", session_id="room", user_id="bob")
            cid.cut()
            await until(lambda: len(node.server.sessions.service.memberships) == 1)
            notify = node.server.sessions.notifications.notify
            await notify("default", "bob", "margin", {}, critical=True, identifier="n1")
            await bob.next("notification")
            bob.acknowledge("n1")
            await pass_time(12, node)
            assert (await chair.next("user_left"))["user_id"] == "bob"
            assert (await chair.next("user_left"))["user_id"] == "cid"
            assert (await chair.call("close", session_id="room"))["ok"]
            await pass_time(12, node)
            await until(lambda: node.server.backend.presence.session_count == 0)
            for member in (chair, bob):
                member.cut()
        with redis.client() as client:
            assert client.acl_log() == [], "Redis refused no command"
