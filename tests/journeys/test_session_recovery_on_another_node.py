"""Test that a session connection recovers on another node, and nobody sees it go."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from client_sdk.contract import Scope
from server.core.sessions.events import SessionEvent
from server.core.sessions.records import SessionKey
from tests.kit.clients.recovering import Event, RecoveringClient, market_client
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.nodes import Node, nodes, pass_time

MODERATOR = (Scope.SESSION_JOIN, Scope.SESSION_MODERATE)


async def member(node: Node, user: str, session_id: str = "room", **token: Any) -> RecoveringClient:
    """Connect to `/session` and join the session."""
    client = RecoveringClient(node, user, "/session", **token)
    client.auth = {"session_id": session_id}
    assert await client.connect() == []
    return client


async def send(client: RecoveringClient, *texts: str, session_id: str = "room") -> None:
    for text in texts:
        assert (await client.call("send", session_id=session_id, data={"text": text}))["ok"]


async def reconnect(client: RecoveringClient, node: Node, **auth: object) -> list[Event]:
    """Reconnect to this node once it has heard what was sent through the others."""
    await node.until_caught_up()
    client.node = node
    return await client.connect(**auth)


async def drain(node: Node, *clients: RecoveringClient) -> None:
    """Stop the node, and read each client's goodbye."""
    stopping = asyncio.create_task(node.stop())
    for client in clients:
        while (await client.next())[0] != "goodbye":
            pass
        await client.wire.until_closed()
        client.client = None
    await stopping


async def until_flushed(*cluster: Node) -> None:
    """Wait until every node has written its presence to Redis."""
    for node in cluster:
        await until(lambda node=node: node.presence.is_idle)


def texts(events: list[Event]) -> list[str]:
    return [body["data"]["text"] for event, body in events if event == "message"]


def names(events: list[Event]) -> list[tuple[str, str]]:
    return [(event, body["user_id"]) for event, body in events if event.startswith("user_")]


@dataclass(slots=True)
class Room:
    """Ann is in the room at the first node, and others at the last one."""

    cluster: list[Node]
    ann: RecoveringClient
    # Only listens, so that no event is dropped.
    bob: RecoveringClient
    sam: RecoveringClient

    async def say(self, *said: str, session_id: str = "room") -> None:
        """Let Sam send messages."""
        await send(self.sam, *said, session_id=session_id)

    async def heard(self) -> list[Event]:
        """What Bob has heard since he was last asked."""
        await until_flushed(*self.running())
        await pass_time(15, *self.running())
        await self.say("now")
        events = []
        while texts([event := await self.bob.next()]) != ["now"]:
            events.append(event)
        return events

    def running(self) -> list[Node]:
        """The nodes that have not been stopped."""
        return [node for node in self.cluster if node.server.ready]


@contextlib.asynccontextmanager
async def room(redis: RedisServer, count: int = 2) -> AsyncIterator[Room]:
    """Run nodes with one session; check at the end that nothing is left of it."""
    async with nodes(redis, count, **{"ping.interval_seconds": 600}) as cluster:
        bob, sam = [await member(cluster[-1], user) for user in ("bob", "sam")]
        shared = Room(cluster, await member(cluster[0], "ann"), bob, sam)
        assert names([await bob.next(), await bob.next()]) == [
            ("user_joined", "sam"),
            ("user_joined", "ann"),
        ]
        yield shared
        for client in (shared.ann, bob, sam):
            if client.client is not None:
                await client.cut()
        await check_empty(*shared.running())


async def check_empty(*cluster: Node) -> None:
    """Pass the recovery window, and check that nothing is left of any client."""
    await until_flushed(*cluster)
    await pass_time(121, *cluster)
    for node in cluster:
        await node.server.recovery.sweep()
        await node.until_empty()
        presence = node.server.sessions.service.local_presence
        assert (presence._parked, presence._ahead, presence._initial_sessions) == ({}, {}, {})


async def test_member_recovers_on_any_node_unseen(shared_redis: RedisServer) -> None:
    async with room(shared_redis, 3) as shared:
        ann = shared.ann
        sid, pid = ann.sid, ann.pid
        for number, turn in enumerate((1, 0, 1, 1, 2, 0)):
            await ann.cut()
            await shared.say(f"{number} first", f"{number} second")
            missed = await reconnect(ann, shared.cluster[turn])
            assert (ann.recovered, ann.sid, ann.pid) == (True, sid, pid), turn
            assert texts(missed) == [f"{number} first", f"{number} second"]
            assert ann.welcome["session_id"] == "room"
            await send(ann, f"{number} back")
            heard = await shared.heard()
            assert names(heard) == [], "no leave and no join"
            assert texts(heard)[-1] == f"{number} back"
            while texts([await ann.next()]) != ["now"]:
                pass
        members = (await ann.call("participants", session_id="room"))["participants"]
        assert [(each["user_id"], each["connections"]) for each in members] == [
            ("bob", 1),
            ("sam", 1),
            ("ann", 1),
        ]


async def test_recovered_member_gets_joins_and_leaves_of_others(shared_redis: RedisServer) -> None:
    async with room(shared_redis, 3) as shared:
        ann, [first, second, third] = shared.ann, shared.cluster
        await ann.cut()
        carl = await member(second, "carl")
        [channel] = first.server.delivery.hub.channels()
        await until(lambda: channel.pushes_after(0, ""))
        await carl.call("leave", session_id="room")
        dora = await member(third, "dora")
        await shared.say("hello")
        missed = await reconnect(ann, second)
        assert ann.recovered
        assert names(missed) == [
            ("user_joined", "carl"),
            ("user_left", "carl"),
            ("user_joined", "dora"),
        ]
        assert texts(missed) == ["hello"]
        await dora.call("leave", session_id="room")
        assert names([await ann.next()]) == [("user_left", "dora")]
        await carl.cut()
        await dora.cut()


async def test_drained_member_recovers_unseen(shared_redis: RedisServer) -> None:
    async with room(shared_redis, 3) as shared:
        ann, sid = shared.ann, shared.ann.sid
        await drain(shared.cluster[0], ann)
        await shared.say("while away")
        carl = await member(shared.cluster[1], "carl")
        missed = await reconnect(ann, shared.cluster[1])
        assert (ann.recovered, ann.sid) == (True, sid)
        assert (texts(missed), names(missed)) == (["while away"], [("user_joined", "carl")])
        assert names(await shared.heard()) == [("user_joined", "carl")]
        assert texts([await ann.next()]) == ["now"]
        await carl.cut()


async def test_half_open_member_recovers_unseen(shared_redis: RedisServer) -> None:
    async with room(shared_redis) as shared:
        ann = shared.ann
        old, ann.client = ann.wire, None
        await shared.say("one")
        assert texts(await reconnect(ann, shared.cluster[1])) == ["one"]
        assert ann.recovered
        await old.until_closed()
        assert names(await shared.heard()) == []


async def test_late_leave_of_the_old_node_does_not_remove_a_moved_member(
    shared_redis: RedisServer,
) -> None:
    async with room(shared_redis) as shared:
        ann, [old, new] = shared.ann, shared.cluster
        await ann.cut()
        await until_flushed(old)
        await reconnect(ann, new)
        assert ann.recovered
        await until_flushed(new)
        # As after an outage: the old node writes its changes late, and restores what it knows.
        old.presence.remove(ann.sid, ("default", "room"), lost=True)
        old.presence._on_up()
        assert names(await shared.heard()) == []
        members = (await ann.call("participants", session_id="room"))["participants"]
        assert [each["connections"] for each in members] == [1, 1, 1]


async def test_late_recovery_shows_a_leave_and_a_join(shared_redis: RedisServer) -> None:
    async with room(shared_redis) as shared:
        ann = shared.ann
        await ann.cut()
        assert names(await shared.heard()) == [("user_left", "ann")]
        assert texts(await reconnect(ann, shared.cluster[1])) == ["now"], "no event about itself"
        assert ann.recovered
        assert names(await shared.heard()) == [("user_joined", "ann")]


@pytest.mark.parametrize("is_present", [True, False])
async def test_kicked_member_does_not_recover_on_another_node(
    shared_redis: RedisServer, is_present: bool
) -> None:
    async with room(shared_redis) as shared:
        ann, node = shared.ann, shared.cluster[1]
        moderator = await member(node, "mod", scopes=MODERATOR)
        await ann.cut()
        if not is_present:
            await shared.heard()
        reply = await moderator.call("kick", session_id="room", user_id="ann")
        assert reply["ok"] == is_present
        await reconnect(ann, node)
        assert not ann.recovered
        await moderator.cut()


async def test_kick_after_a_drain_bars_the_saved_member(shared_redis: RedisServer) -> None:
    async with room(shared_redis, 3) as shared:
        ann, node = shared.ann, shared.cluster[1]
        moderator = await member(node, "mod", scopes=MODERATOR)
        await drain(shared.cluster[0], ann)
        assert (await moderator.call("kick", session_id="room", user_id="ann"))["ok"]
        await reconnect(ann, node)
        assert not ann.recovered
        await moderator.cut()


@pytest.mark.parametrize("is_drained", [True, False])
async def test_closed_session_does_not_recover_on_another_node(
    shared_redis: RedisServer, is_drained: bool
) -> None:
    async with room(shared_redis, 3) as shared:
        ann, node = shared.ann, shared.cluster[1]
        moderator = await member(node, "mod", scopes=MODERATOR)
        await (drain(shared.cluster[0], ann) if is_drained else ann.cut())
        assert (await moderator.call("close", session_id="room"))["ok"]
        ann.auth = {}
        assert await reconnect(ann, node) == []
        assert not ann.recovered
        await moderator.cut()


async def test_member_of_many_sessions_recovers_in_each(shared_redis: RedisServer) -> None:
    async with room(shared_redis) as shared:
        ann = shared.ann
        for session_id in ("second", "third"):
            for client in (ann, shared.sam):
                assert (await client.call("join", session_id=session_id))["ok"]
        await ann.call("leave", session_id="third")
        await ann.cut()
        await shared.say("one", session_id="second")
        await shared.say("none", session_id="third")
        await shared.say("two")
        missed = await reconnect(ann, shared.cluster[1])
        assert ann.recovered
        assert sorted(texts(missed)) == ["one", "two"]
        assert (await ann.call("send", session_id="second", data={}))["ok"]
        reply = await ann.call("send", session_id="third", data={})
        assert reply["error"]["code"] == "session.not_joined"


async def test_notices_follow_a_recovered_member(shared_redis: RedisServer) -> None:
    async with room(shared_redis) as shared:
        ann, [old, new] = shared.ann, shared.cluster
        await ann.cut()
        parked = old.server.delivery.hub._registry.parked[ann.sid]
        await new.server.sessions.notifications.notify("default", "ann", "fill", {"n": 1})
        await until(lambda: parked.missed_pushes(0))
        missed = await reconnect(ann, new)
        assert ann.recovered
        assert [(event, body["data"]) for event, body in missed] == [("notification", {"n": 1})]


async def test_lost_session_events_recover_nothing(shared_redis: RedisServer) -> None:
    async with room(shared_redis, 3) as shared:
        ann = shared.ann
        await drain(shared.cluster[0], ann)
        carl = await member(shared.cluster[1], "carl")
        with shared_redis.client() as client:
            [events] = client.keys(f"{shared.cluster[0].prefix}:*:events")
            client.delete(events)
        assert await reconnect(ann, shared.cluster[1]) == []
        assert not ann.recovered
        await carl.cut()


async def test_both_namespaces_of_a_connection_recover_on_another_node(
    shared_redis: RedisServer,
) -> None:
    async with room(shared_redis) as shared:
        ann, [old, new] = shared.ann, shared.cluster
        market = await market_client(old, "TRADES:A")
        await market.cut()
        await ann.cut()
        market.node = ann.node = new
        assert await market.connect() == []
        ann.client = market.client
        await ann.connect_namespace()
        assert (market.recovered, ann.recovered) == (True, True)
        market.client = None


async def test_members_of_a_room_recover_together(shared_redis: RedisServer) -> None:
    async with room(shared_redis) as shared:
        [old, new] = shared.cluster
        others = [await member(old, f"u{number}") for number in range(20)]
        clients = [shared.ann, *others]
        for client in clients:
            await client.cut()
        await shared.say("one")
        missed = await asyncio.gather(*(reconnect(each, new) for each in clients))
        for client, events in zip(clients, missed, strict=True):
            assert client.recovered
            assert texts(events) == ["one"]
        assert names(await shared.heard()) == [("user_joined", each.user) for each in others]
        for client in others:
            assert texts([await client.next()]) == ["now"]
            await client.cut()


async def test_narrower_token_does_not_recover_a_session(shared_redis: RedisServer) -> None:
    async with room(shared_redis) as shared:
        ann = shared.ann
        await ann.cut()
        ann.token, ann.auth = {"sessions": ["other*"]}, {}
        assert await reconnect(ann, shared.cluster[1]) == []
        assert not ann.recovered
        reply = await ann.call("send", session_id="room", data={})
        assert reply["error"]["code"] == "session.not_joined"


class HeldImport:
    """Stops each import of a session on one node, after it has read the session's events."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.proceed = asyncio.Event(), asyncio.Event()
        self._read = node.presence.events_since
        monkeypatch.setattr(node.presence, "events_since", self._read_and_wait)

    async def _read_and_wait(self, key: SessionKey, revision: int) -> Sequence[SessionEvent] | None:
        events = await self._read(key, revision)
        self.reached.set()
        await self.proceed.wait()
        return events


async def test_events_handled_during_the_import_come_once(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room(shared_redis, 3) as shared:
        ann, [_, node, other] = shared.ann, shared.cluster
        await ann.cut()
        held = HeldImport(node, monkeypatch)
        connecting = asyncio.create_task(reconnect(ann, node))
        await held.reached.wait()
        [channel] = node.server.delivery.hub.channels()
        carl = await member(other, "carl")
        await until(lambda: channel.pushes_after(0, ""))
        held.proceed.set()
        assert names(await connecting) == [("user_joined", "carl")]
        assert ann.recovered
        await shared.heard()
        assert texts([await ann.next()]) == ["now"]
        await carl.cut()


async def test_events_handled_after_the_import_do_not_come_twice(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room(shared_redis, 3) as shared:
        ann, [_, node, other] = shared.ann, shared.cluster
        dora = await member(node, "dora")
        assert names([await ann.next()]) == [("user_joined", "dora")]
        await ann.cut()
        late: list[SessionEvent] = []
        handle_event = node.presence._on_event
        monkeypatch.setattr(node.presence, "_on_event", late.append)
        carl = await member(other, "carl")
        await until(lambda: late)
        held = HeldImport(node, monkeypatch)
        ann.node = node
        await ann.open()
        ann.wire.send(f"40/session,{json.dumps(ann.auth_packet())}")
        await held.reached.wait()
        # The client goes again, so that its connection stays parked here.
        ann.wire.cut()
        ann.client = None
        held.proceed.set()
        await until(lambda: node.server.sessions.tickets.parked_count)
        monkeypatch.setattr(node.presence, "_on_event", handle_event)
        for event in late:
            handle_event(event)
        assert names(await reconnect(ann, node)) == [("user_joined", "carl")]
        assert ann.recovered
        for client in (carl, dora):
            await client.cut()
