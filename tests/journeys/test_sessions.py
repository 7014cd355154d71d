"""Test sessions over real sockets: joins, messages, leaves and isolation."""

import asyncio
import json
from typing import Any

import pytest

from client_sdk.contract import Scope
from server.core.sessions.records import session_channel
from tests.kit.clients.session_client import SessionClient
from tests.kit.clock import START
from tests.kit.patience import until
from tests.kit.server.in_process import RunningServer, running

NOW = int(START * 1000)
MODERATOR = (Scope.SESSION_JOIN, Scope.SESSION_MODERATE)


async def disconnect_all(node: RunningServer, *members: SessionClient) -> None:
    """Cut all clients, pass the grace period, and check that nothing is left."""
    for member in members:
        member.cut()
    await until(lambda: not node.residue()["sockets"])
    node.pass_time(20)
    await node.server.sessions.service.sweep()
    await node.until_empty()
    assert node.sessions.stats()["participants"] == 0


@pytest.mark.behaviour("E1", "E4", "E12")
async def test_members_see_joins_messages_and_leaves() -> None:
    async with running() as node:
        ann = await SessionClient.connect(node, "ann", "room-1")
        assert (ann.welcome["user_id"], ann.welcome["session_id"]) == ("ann", "room-1")
        bob = await SessionClient.connect(node, "bob")
        reply = await bob.call("join", session_id="room-1")
        assert reply["participant_count"] == 2
        assert reply["participants"] == [
            {"user_id": "ann", "connections": 1, "joined_at": NOW},
            {"user_id": "bob", "connections": 1, "joined_at": NOW},
        ]
        assert (reply["seq"], reply["recovered"], reply["messages"]) == (0, False, [])
        assert await ann.next("user_joined") == {
            "session_id": "room-1",
            "user_id": "bob",
            "participant_count": 2,
            "ts": NOW,
        }
        sent = await bob.call("send", session_id="room-1", data={"text": "héllo"}, id="m1")
        assert sent == {"ok": True, "id": "m1", "epoch": reply["epoch"], "seq": 1, "ts": NOW}
        await ann.call("send", session_id="room-1", data={"text": "hi"})
        for member in (ann, bob):
            first, second = await member.next("message"), await member.next("message")
            assert first == {
                "session_id": "room-1",
                "epoch": reply["epoch"],
                "seq": 1,
                "id": "m1",
                "user_id": "bob",
                "data": {"text": "héllo"},
                "ts": NOW,
            }
            assert (second["seq"], second["user_id"]) == (2, "ann")
        assert (await bob.call("leave", session_id="room-1")) == {"ok": True}
        left = await ann.next("user_left")
        assert (left["user_id"], left["participant_count"]) == ("bob", 1)
        assert await bob.pending_events() == []
        await disconnect_all(node, ann, bob)


@pytest.mark.behaviour("E5", "E9", "E15")
async def test_sessions_and_orgs_are_isolated() -> None:
    async with running() as node:
        ann = await SessionClient.connect(node, "ann", "room-1")
        other_room = await SessionClient.connect(node, "bob", "room-2")
        other_org = await SessionClient.connect(node, "ann", "room-1", org="acme")
        nowhere = await SessionClient.connect(node, "carl")
        narrow = await SessionClient.connect(node, "dora", sessions=["public-*"])
        reply = await narrow.call("join", session_id="room-1")
        assert reply["error"]["code"] == "auth.forbidden"
        await ann.call("send", session_id="room-1", data={"canary": "message"})
        await ann.call("signal", session_id="room-1", data={"canary": "signal"})
        await node.server.sessions.notifications.notify(
            "default", "ann", "canary", {"canary": "notice"}
        )
        for outsider in (other_room, other_org, nowhere, narrow):
            requests: list[tuple[str, dict[str, Any]]] = [
                ("send", {"data": {}}),
                ("signal", {"data": {}}),
                ("history", {}),
                ("leave", {}),
            ]
            for event, payload in requests:
                if outsider is not other_org:
                    reply = await outsider.call(event, session_id="room-1", **payload)
                    assert reply["error"]["code"] == "session.not_joined"
            assert await outsider.pending_events() == []
        assert (await other_org.call("history", session_id="room-1"))["messages"] == []
        assert [name for name, _ in await ann.pending_events()] == ["message", "notification"]
        await disconnect_all(node, ann, other_room, other_org, nowhere, narrow)


@pytest.mark.behaviour("E15")
@pytest.mark.parametrize(
    ("token", "session_id", "code"),
    [
        ({"sessions": ["public-*"]}, "room-1", "auth.forbidden"),
        ({"scopes": [Scope.MARKET_READ]}, "room-1", "auth.forbidden"),
        ({}, "job:", "request.invalid"),
        ({}, "a room", "request.invalid"),
        ({}, 5, "request.invalid"),
        ({}, ["room-1"], "request.invalid"),
    ],
)
async def test_forbidden_join_is_refused_at_connect_and_by_event(
    token: dict[str, Any], session_id: Any, code: str
) -> None:
    async with running() as node:
        with pytest.raises(AssertionError, match=code):
            await SessionClient.connect(node, "eve", session_id, **token)
        if "scopes" not in token:
            eve = await SessionClient.connect(node, "eve", **token)
            reply = await eve.call("join", session_id=session_id)
            assert reply["error"]["code"] == code
            assert reply["error"]["message"]
            eve.cut()
        assert len(node.sessions) == 0


@pytest.mark.behaviour("E6", "E11")
async def test_user_on_several_devices_counts_once() -> None:
    async with running() as node:
        ann = await SessionClient.connect(node, "ann", "room")
        phone = await SessionClient.connect(node, "bob", "room")
        assert (await ann.next("user_joined"))["participant_count"] == 2
        desk = await SessionClient.connect(node, "bob", "room")
        reply = await ann.call("participants", session_id="room")
        assert reply["participant_count"] == 2
        assert [each["connections"] for each in reply["participants"]] == [1, 2]
        phone.cut()
        desk.cut()
        await until(lambda: node.residue()["sockets"] == 1)
        node.pass_time(9)
        await node.server.sessions.service.sweep()
        back = await SessionClient.connect(node, "bob", "room")
        node.pass_time(9)
        await node.server.sessions.service.sweep()
        assert await ann.pending_events() == [], "no leave and no join is announced"
        back.cut()
        await until(lambda: node.residue()["sockets"] == 1)
        node.pass_time(11)
        await node.server.sessions.service.sweep()
        left = await ann.next("user_left")
        assert (left["user_id"], left["participant_count"]) == ("bob", 1)
        assert await ann.pending_events() == [], "the leave is announced once"
        await disconnect_all(node, ann)


@pytest.mark.behaviour("E6")
async def test_namespace_disconnect_leaves_the_session_at_once() -> None:
    async with running() as node:
        ann, bob = (
            await SessionClient.connect(node, "ann", "room"),
            await SessionClient.connect(node, "bob", "room"),
        )
        await ann.next("user_joined")
        bob.leave()
        assert (await ann.next("user_left"))["user_id"] == "bob"
        await disconnect_all(node, ann, bob)


@pytest.mark.behaviour("E7", "E8")
async def test_missing_session_is_empty_and_refuses_messages() -> None:
    async with running() as node:
        ann = await SessionClient.connect(node, "ann")
        reply = await ann.call("participants", session_id="nowhere")
        assert reply == {"ok": True, "participant_count": 0, "participants": []}
        reply = await ann.call("send", session_id="nowhere", data={})
        assert reply["error"]["code"] == "session.not_joined"
        await disconnect_all(node, ann)


@pytest.mark.behaviour("D12", "D20", "D23", "D24", "D40")
@pytest.mark.parametrize("session_id", ["job:42", "thread:7"])
async def test_first_member_sets_the_session_metadata(
    session_id: str,
) -> None:
    async with running() as node:
        worker = await SessionClient.connect(node, "worker")
        watchers = [await SessionClient.connect(node, f"w{number}") for number in range(3)]
        about = {"title": "import", "steps": [1, {"of": 3}]}
        reply = await worker.call("join", session_id=session_id, metadata=about)
        assert reply["metadata"] == about
        for watcher in watchers:
            reply = await watcher.call("join", session_id=session_id, metadata={"title": "mine"})
            assert reply["metadata"] == about, "the first member's metadata is kept"
        await worker.call("send", session_id=session_id, data={"progress": {"done": [1, 2]}})
        for watcher in watchers:
            assert (await watcher.next("message"))["data"] == {"progress": {"done": [1, 2]}}
        await watchers[0].call("leave", session_id=session_id)
        await worker.call("send", session_id=session_id, data={"progress": 100})
        assert (await watchers[1].next("message"))["data"] == {"progress": 100}
        names = [name for name, _ in await watchers[0].pending_events()]
        assert "message" not in names, "it left the session"
        await disconnect_all(node, worker, *watchers)


async def test_repeated_message_id_is_idempotent_or_a_conflict() -> None:
    async with running() as node:
        ann = await SessionClient.connect(node, "ann", "room")
        first = await ann.call("send", session_id="room", data={"n": 1}, id="x")
        node.clock.advance(5)
        assert await ann.call("send", session_id="room", data={"n": 1}, id="x") == first
        reply = await ann.call("send", session_id="room", data={"n": 2}, id="x")
        assert reply["error"]["code"] == "publish.conflict"
        assert [body["seq"] for _, body in await ann.pending_events()] == [1]
        await disconnect_all(node, ann)


async def test_history_has_pages_and_join_returns_missed_messages() -> None:
    async with running() as node:
        ann = await SessionClient.connect(node, "ann", "room")
        for number in range(1, 8):
            last = await ann.call("send", session_id="room", data={"n": number})
        page = await ann.call("history", session_id="room", limit=3)
        assert [each["seq"] for each in page["messages"]] == [5, 6, 7]
        page = await ann.call("history", session_id="room", limit=3, before_seq=5)
        assert [each["data"]["n"] for each in page["messages"]] == [2, 3, 4]
        bob = await SessionClient.connect(node, "bob")
        since = {"epoch": last["epoch"], "seq": 5}
        reply = await bob.call("join", session_id="room", since=since)
        assert (reply["recovered"], reply["seq"]) == (True, 7)
        assert [each["seq"] for each in reply["messages"]] == [6, 7]
        since = {"epoch": "another", "seq": 5}
        reply = await bob.call("join", session_id="room", since=since)
        assert (reply["recovered"], reply["messages"]) == (False, [])
        await disconnect_all(node, ann, bob)


@pytest.mark.behaviour("E13")
async def test_session_message_size_is_limited() -> None:
    async with running({"limits.message_bytes": 4096}) as node:
        ann, bob = (
            await SessionClient.connect(node, "ann", "room"),
            await SessionClient.connect(node, "bob", "room"),
        )
        text_bytes = 4096 - len(json.dumps({"text": ""}, separators=(",", ":")))
        assert (await ann.call("send", session_id="room", data={"text": "x" * text_bytes}))["ok"]
        assert len((await bob.next("message"))["data"]["text"]) == text_bytes
        for event in ("send", "signal"):
            reply = await ann.call(event, session_id="room", data={"text": "x" * (text_bytes + 1)})
            assert reply["error"]["code"] == "limit.payload"
        await disconnect_all(node, ann, bob)


async def test_signal_reaches_other_members_and_is_not_stored() -> None:
    async with running() as node:
        ann, bob = (
            await SessionClient.connect(node, "ann", "room"),
            await SessionClient.connect(node, "bob", "room"),
        )
        await ann.next("user_joined")
        assert await ann.call("signal", session_id="room", data={"typing": True}) == {"ok": True}
        signal = await bob.next("signal")
        assert (signal["user_id"], signal["data"]) == ("ann", {"typing": True})
        assert await ann.pending_events() == []
        assert (await bob.call("history", session_id="room"))["messages"] == []
        await disconnect_all(node, ann, bob)


async def test_moderator_kicks_every_device_and_closes_a_session() -> None:
    async with running() as node:
        chair = await SessionClient.connect(node, "chair", "room", scopes=MODERATOR)
        phone, desk = [await SessionClient.connect(node, "bob", "room") for _ in range(2)]
        await chair.next("user_joined")
        for event in ("kick", "close"):
            more = {"user_id": "chair"} if event == "kick" else {}
            reply = await phone.call(event, session_id="room", **more)
            assert reply["error"]["code"] == "auth.forbidden"
        reply = await chair.call("kick", session_id="room", user_id="bob")
        assert reply == {"ok": True, "connections": 2}
        for member in (phone, desk):
            assert (await member.next("session_closed"))["reason"] == "kicked"
            reply = await member.call("send", session_id="room", data={})
            assert reply["error"]["code"] == "session.not_joined"
        assert (await chair.next("user_left"))["participant_count"] == 1
        assert await chair.pending_events() == []
        reply = await chair.call("kick", session_id="room", user_id="bob")
        assert reply["error"]["code"] == "session.not_joined"
        await desk.call("join", session_id="room")
        assert await chair.call("close", session_id="room") == {"ok": True, "connections": 2}
        for member in (chair, desk):
            assert (await member.next("session_closed"))["reason"] == "closed"
            for event in ("join", "leave", "history"):
                reply = await member.call(event, session_id="room")
                assert reply["error"]["code"] == "session.closed"
        await disconnect_all(node, chair, phone, desk)


async def test_moderator_is_bound_to_the_sessions_of_the_token() -> None:
    async with running() as node:
        bob = await SessionClient.connect(node, "bob", "room")
        elsewhere = await SessionClient.connect(
            node, "chair", scopes=MODERATOR, sessions=["team:*"]
        )
        outsider = await SessionClient.connect(node, "mod", scopes=[Scope.SESSION_MODERATE])
        for chair in (elsewhere, outsider):
            for event, more in (("kick", {"user_id": "bob"}), ("close", {})):
                reply = await chair.call(event, session_id="room", **more)
                assert reply["error"]["code"] == "auth.forbidden"
        assert await bob.pending_events() == []
        await disconnect_all(node, bob, elsewhere, outsider)


async def test_leaving_member_gets_earlier_messages_first() -> None:
    async with running() as node:
        chair = await SessionClient.connect(node, "chair", "room", scopes=MODERATOR)
        bob = await SessionClient.connect(node, "bob", "room")
        # The server reads both in one loop turn: the message is unflushed when the kick arrives.
        message = {"session_id": "room", "data": {"text": "last"}}
        kick = {"session_id": "room", "user_id": "bob"}
        for event, body in (("send", message), ("kick", kick)):
            chair.client.send(f"42/session,8{json.dumps([event, body])}")
        events = [await bob.client.event() for _ in range(2)]
        assert [name for name, _ in events] == ["message", "session_closed"]
        assert events[0][1]["data"] == {"text": "last"}
        await bob.call("join", session_id="room")
        bob.client.send(f"42/session,8{json.dumps(['send', message])}")
        bob.client.send(f"42/session,8{json.dumps(['leave', {'session_id': 'room'}])}")
        texts = [await bob.client.text() for _ in range(3)]
        assert ['"message"' in each for each in texts].count(True) == 1, texts
        await disconnect_all(node, chair, bob)


async def test_rejoin_keeps_the_backlog_of_a_slow_consumer() -> None:
    large_buffers = {"delivery.buffer_bytes": 64 * 1024**2, "delivery.backlog_bytes": 64 * 1024**2}
    async with running(large_buffers) as node:
        ann, bob = (
            await SessionClient.connect(node, "ann", "room"),
            await SessionClient.connect(node, "bob", "room"),
        )
        links = {
            client.principal.user_id: client.link
            for client in node.server.clients.context.clients()
        }
        bob.client.pause_reading()
        ann.cut()
        channel, large = session_channel("default", "room"), b'{"data":"%b"}' % (b"x" * 1000**2)
        while not links["bob"].clogged:
            await node.server.backend.broker.publish(channel, large, NOW)
            await asyncio.sleep(0)
        for _ in range(2):
            sent = (
                await node.server.backend.broker.publish(channel, b'{"data":{}}', NOW)
            ).position.seq
        received = node.server.statistics.snapshot()["messages_in"]
        bob.client.send(f"42/session,8{json.dumps(['join', {'session_id': 'room'}])}")
        bob.client.send(f"42/session,9{json.dumps(['send', {'session_id': 'room', 'data': {}}])}")
        await until(lambda: node.server.statistics.snapshot()["messages_in"] > received)
        bob.client.resume_reading()
        seqs: list[int] = []
        while len(seqs) < sent + 1:
            text = await bob.client.text()
            if text.startswith("42/session,"):
                event, body = json.loads(text[text.index("[") :])
                seqs += [body["seq"]] if event == "message" else []
        assert seqs == list(range(1, sent + 2))
        await disconnect_all(node, bob)


async def test_empty_session_keeps_its_log_for_the_retention_time() -> None:
    async with running({"session.retention_seconds": 100}) as node:
        ann = await SessionClient.connect(node, "ann", "room")
        first = await ann.call("send", session_id="room", data={"n": 1})
        await ann.call("leave", session_id="room")
        node.pass_time(99)
        await node.server.sessions.service.sweep()
        assert (await ann.call("join", session_id="room"))["seq"] == 1
        assert len((await ann.call("history", session_id="room"))["messages"]) == 1
        await ann.call("leave", session_id="room")
        node.pass_time(101)
        await node.server.sessions.service.sweep()
        since = {"epoch": first["epoch"], "seq": 1}
        reply = await ann.call("join", session_id="room", since=since)
        assert (reply["seq"], reply["recovered"]) == (0, False)
        assert reply["epoch"] != first["epoch"]
        await disconnect_all(node, ann)


async def test_session_settings_limit_and_require_existence() -> None:
    async with running({"session.per_connection": 2}) as node:
        ann = await SessionClient.connect(node, "ann", "room-1")
        assert (await ann.call("join", session_id="room-2"))["ok"]
        reply = await ann.call("join", session_id="room-3")
        assert reply["error"]["code"] == "limit.topics"
        assert (await ann.call("join", session_id="room-2"))["ok"], "it is joined already"
        await disconnect_all(node, ann)
    async with running({"session.must_exist": True}) as node:
        ann = await SessionClient.connect(node, "ann")
        reply = await ann.call("join", session_id="room")
        assert reply["error"]["code"] == "session.not_joined"
        reply = await ann.call("join", session_id="room", metadata={"x": "y" * 5000})
        assert reply["error"]["code"] == "limit.payload"
        await disconnect_all(node, ann)


@pytest.mark.behaviour("D14")
async def test_critical_notice_repeats_until_acknowledged() -> None:
    async with running() as node:
        notify = node.server.sessions.notifications.notify
        assert (await notify("default", "nobody", "hello", {})).reached == 0
        sent = await notify(
            "default", "bob", "margin", {"level": 1}, critical=True, identifier="n1"
        )
        assert (sent.id, sent.reached) == ("n1", 0)
        phone = await SessionClient.connect(node, "bob")
        notice = await phone.next("notification")
        assert notice == {
            "id": "n1",
            "event": "margin",
            "data": {"level": 1},
            "critical": True,
            "ts": NOW,
        }
        desk = await SessionClient.connect(node, "bob")
        assert (await desk.next("notification"))["id"] == "n1"
        assert (await notify("default", "bob", "hello", {"plain": True})).reached == 2
        assert not (await desk.next("notification"))["critical"]
        desk.acknowledge("n1")
        assert [body["event"] for _, body in await desk.pending_events()] == []
        late = await SessionClient.connect(node, "bob")
        assert await late.pending_events() == []
        repeated = await notify(
            "default", "bob", "margin", {"level": 1}, critical=True, identifier="n1"
        )
        assert repeated.reached == 0, "it was acknowledged"
        phone.client.send("43/session,999[]")
        assert [body["event"] for _, body in await phone.pending_events()] == ["hello"]
        await disconnect_all(node, phone, desk, late)


@pytest.mark.behaviour("D25", "D26", "D27")
async def test_statistics_have_a_stable_shape_and_count_events() -> None:
    async with running() as node:
        snapshot = node.server.statistics.snapshot
        before = snapshot()
        assert list(before) == [
            "connections",
            "users",
            "topics",
            "sessions",
            "lagging",
            "limits_alone",
            "messages_in",
            "messages_out",
            "refused",
            "dropped",
            "limits_local",
            "merged",
            "recovered",
            "topics_evicted",
            "topics_refused",
        ]
        assert not any(before.values())
        ann, bob = (
            await SessionClient.connect(node, "ann", "room"),
            await SessionClient.connect(node, "bob", "room"),
        )
        await ann.call("send", session_id="room", data={})
        await bob.next("message")
        await bob.call("send", session_id="elsewhere", data={})
        now = snapshot()
        assert [now[name] for name in ("connections", "users", "topics", "sessions")] == [
            2,
            2,
            1,
            1,
        ]
        assert [now[name] for name in ("messages_in", "messages_out", "refused")] == [1, 2, 1]
        await disconnect_all(node, ann, bob)
        after = snapshot()
        assert [after[name] for name in ("connections", "users", "topics")] == [0, 0, 0]
        assert after["messages_out"] == 2
