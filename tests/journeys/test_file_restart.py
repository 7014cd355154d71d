"""Clients of a server with a data folder carry on after its restart."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.kit.clients.recovering import (
    Event,
    RecoveringClient,
    market_client,
    publish_trades,
    trade_ids,
)
from tests.kit.clients.session_client import SessionClient
from tests.kit.clock import ManualClock
from tests.kit.server.in_process import PRICE, RunningServer, running


async def test_market_client_resumes_after_a_restart(tmp_path: Path) -> None:
    settings, clock = {"broker.url": f"file:{tmp_path}"}, ManualClock()
    async with running(settings, clock=clock) as server:
        ann = await market_client(server, "TRADES:A", "PRICE:A")
        await publish_trades(server, 1)
        await server.server.market.publishing.publish("PRICE:A", PRICE)
        pid = ann.pid
    while (await ann.next())[0] != "goodbye":
        pass
    ann.wire.cut()
    async with running(settings, clock=clock) as server:
        await publish_trades(server, 2, 3)
        ann.node = server
        missed = await ann.connect()
        assert (ann.recovered, ann.pid) == (True, pid)
        assert trade_ids(missed) == [2, 3]
        await publish_trades(server, 4)
        assert trade_ids([await ann.next()]) == [4]
        await ann.cut()


async def test_session_goes_on_after_a_restart(tmp_path: Path) -> None:
    settings, clock = {"broker.url": f"file:{tmp_path}"}, ManualClock()
    async with running(settings, clock=clock) as server:
        first = await SessionClient.connect(server, "ann", "room")
        sent = await first.call("send", session_id="room", data={"n": 1}, id="one")
        await server.server.sessions.notifications.notify(
            "default", "bob", "filled", {"n": 7}, critical=True, identifier="fill"
        )
    first.cut()
    async with running(settings, clock=clock) as server:
        bob = await SessionClient.connect(server, "bob")
        assert (await bob.next("notification"))["data"] == {"n": 7}
        since = {"epoch": sent["epoch"], "seq": 0}
        joined = await bob.call("join", session_id="room", since=since)
        assert joined["recovered"]
        assert [each["data"] for each in joined["messages"]] == [{"n": 1}]
        users = [each["user_id"] for each in joined["participants"]]
        assert users == ["ann", "bob"], "ann is within her grace time"
        ann = await SessionClient.connect(server, "ann", "room")
        again = await ann.call("send", session_id="room", data={"n": 1}, id="one")
        assert again == sent, "the retry of a message whose reply was lost"
        ann.cut()
        bob.cut()


async def member(server: RunningServer, user: str, session_id: str = "room") -> RecoveringClient:
    """Connect to `/session` and join the session."""
    client = RecoveringClient(server, user, "/session")
    client.auth = {"session_id": session_id}
    assert await client.connect() == []
    return client


async def send(client: RecoveringClient, number: int) -> None:
    assert (await client.call("send", session_id="room", data={"n": number}))["ok"]


async def read_goodbye(client: RecoveringClient) -> list[Event]:
    """Read up to the goodbye; returns what came before."""
    events: list[Event] = []
    while (event := await client.next())[0] != "goodbye":
        events.append(event)
    client.wire.cut()
    return events


def presence(events: list[Event]) -> list[tuple[str, str]]:
    return [(name, body["user_id"]) for name, body in events if name.startswith("user_")]


def numbers(events: list[Event]) -> list[int]:
    return [body["data"]["n"] for name, body in events if name == "message"]


async def test_members_resume_after_a_restart_unseen(tmp_path: Path) -> None:
    settings, clock = {"broker.url": f"file:{tmp_path}"}, ManualClock()
    async with running(settings, clock=clock) as server:
        ann, bob = [await member(server, user) for user in ("ann", "bob")]
        quiet = await member(server, "cid", "quiet")
        clients = (ann, bob, quiet)
        await ann.next()
        await send(ann, 1)
    for client in clients:
        assert presence(await read_goodbye(client)) == []
    pids = [client.pid for client in clients]
    async with running(settings, clock=clock) as server:
        for client in clients:
            client.node = server
        eve = await member(server, "eve")
        await send(eve, 2)
        missed = await ann.connect()
        assert (numbers(missed), presence(missed)) == ([2], [("user_joined", "eve")])
        clock.advance(9)
        assert presence(await bob.connect()) == [("user_joined", "eve")]
        assert await quiet.connect() == [], "a session without messages too"
        assert [client.pid for client in clients] == pids
        assert all(client.recovered for client in clients)
        clock.advance(2)
        await server.server.sessions.service.sweep()
        await send(bob, 3)
        assert numbers([await ann.next()]) == [3], "nobody has left"
        reply = await ann.call("participants", session_id="room")
        assert [each["user_id"] for each in reply["participants"]] == ["ann", "bob", "eve"]
        for client in (*clients, eve):
            client.wire.cut()


async def test_member_who_does_not_return_after_a_restart_leaves(tmp_path: Path) -> None:
    settings, clock = {"broker.url": f"file:{tmp_path}"}, ManualClock()
    async with running(settings, clock=clock) as server:
        ann, bob = [await member(server, user) for user in ("ann", "bob")]
        await send(ann, 1)
    for client in (ann, bob):
        await read_goodbye(client)
    async with running(settings, clock=clock) as server:
        ann.node = bob.node = server
        assert await ann.connect() == []
        clock.advance(11)
        assert presence([await ann.next()]) == [("user_left", "bob")]
        await ann.cut()
        clock.advance(11)
        await server.server.sessions.service.sweep()
        assert presence(await bob.connect()) == [("user_left", "ann")]
        assert bob.recovered
        bob.wire.cut()


async def test_kicked_member_does_not_resume_after_a_restart(tmp_path: Path) -> None:
    settings, clock = {"broker.url": f"file:{tmp_path}"}, ManualClock()
    async with running(settings, clock=clock) as server:
        ann = await member(server, "ann")
        await send(ann, 1)
    await read_goodbye(ann)
    async with running(settings, clock=clock) as server:
        assert await server.server.backend.presence.kick(("default", "room"), "ann") == 0
        ann.node = server
        ann.auth = {}
        await ann.connect()
        assert not ann.recovered
        ann.wire.cut()


async def test_members_of_a_killed_process_do_not_come_back(tmp_path: Path) -> None:
    settings, clock = {"broker.url": f"file:{tmp_path / 'a'}"}, ManualClock()
    async with running(settings, clock=clock) as server:
        ann = await member(server, "ann")
        await send(ann, 1)
    await read_goodbye(ann)
    async with running(settings, clock=clock) as server:
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    async with running({"broker.url": f"file:{tmp_path / 'b'}"}, clock=clock) as server:
        assert (await server.server.backend.presence.participants(("default", "room"))) is not None
        ann.node = server
        ann.auth = {}
        await ann.connect()
        assert not ann.recovered
        reply = await ann.call("participants", session_id="room")
        assert reply["participants"] == []
        ann.wire.cut()


async def test_users_wait_for_a_restart_during_a_long_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.draining._DISCONNECTS_PER_SECOND", 0.01)
    settings, clock = {"broker.url": f"file:{tmp_path}"}, ManualClock()
    async with running(settings, clock=clock) as server:
        ann, bob = [await member(server, user) for user in ("ann", "bob")]
        await ann.next()
        draining = asyncio.create_task(server.server.drain(60))
        while len(server.server.sockets.connections()) == 2:
            clock.advance(1)
            await asyncio.sleep(0.06)
        clock.advance(11)
        await server.server._sweep()
        members = await server.server.backend.presence.participants(("default", "room"))
        assert members is not None
        assert [each.user_id for each in members.members] == ["ann", "bob"]
        # In steps: after a leap the client would count as lost before its goodbye is due.
        while not draining.done():
            clock.advance(1)
            await asyncio.sleep(0.06)
        await draining
    for client in (ann, bob):
        assert presence(await read_goodbye(client)) == []
