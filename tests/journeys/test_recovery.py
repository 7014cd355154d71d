"""Test connection state recovery over real sockets: nothing lost, nothing leaked."""

import asyncio
import json
from functools import partial
from typing import Any

import aiohttp
import pytest

from client_sdk.contract import Scope, SubscriptionStatus
from server.transport.websocket import WebSocketCarrier
from tests.kit.clients.recovering import (
    RecoveringClient,
    market_client,
    publish_trades,
    trade_ids,
)
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running

MODERATOR = (Scope.SESSION_JOIN, Scope.SESSION_MODERATE)


async def session_client(
    node: RunningServer, user: str, session_id: str = "room", **token: Any
) -> RecoveringClient:
    client = RecoveringClient(node, user, "/session", **token)
    client.auth = {"session_id": session_id}
    assert await client.connect() == []
    return client


async def sweep(node: RunningServer) -> None:
    await node.server.sessions.service.sweep()
    await node.server.recovery.sweep()


async def check_empty(node: RunningServer, *clients: RecoveringClient) -> None:
    """Cut all clients, pass the recovery window, and check that nothing is left."""
    for client in clients:
        if client.client is not None:
            await client.cut()
    node.pass_time(121)
    await sweep(node)
    await node.until_empty()
    server = node.server
    assert server.sessions.service.local_presence._parked == {}
    assert server.delivery.hub._registry.parked == {}
    assert server.sessions.service.local_presence._initial_sessions == {}
    assert server.market.subscriptions._parked == set()
    for tickets in (server.market.tickets, server.sessions.tickets):
        assert (len(tickets), tickets.parked_count, tickets._parked_by_owner) == (0, 0, {})


@pytest.mark.behaviour("E14")
async def test_cut_client_recovers_with_missed_events_repeatedly() -> None:
    async with running() as node:
        ann = await market_client(node, "TRADES:A", "PRICE:A")
        sid, pid = ann.sid, ann.pid
        assert ann.offset is not None, "the welcome has the first offset"
        number = 0
        for _ in range(4):
            await ann.cut()
            await publish_trades(node, number + 1, number + 2)
            await node.server.market.publishing.publish("PRICE:A", PRICE)
            missed = await ann.connect()
            assert trade_ids(missed) == [number + 1, number + 2]
            assert [event for event, _ in missed].count("price") == 1
            assert (ann.recovered, ann.sid, ann.pid) == (True, sid, pid)
            await publish_trades(node, number + 3)
            number += 3
            assert trade_ids([await ann.next()]) == [number]
        assert ann.welcome["server_time"] == int(node.clock.time() * 1000)
        assert ann.welcome["resume_window_ms"] == 120_000
        await check_empty(node, ann)


async def test_recovered_member_never_left_its_session() -> None:
    async with running() as node:
        ann, bob = await session_client(node, "ann"), await session_client(node, "bob")
        assert (await ann.next())[0] == "user_joined"
        await bob.cut()
        for text in ("one", "two"):
            await ann.call("send", session_id="room", data={"text": text})
        await ann.call("participants", session_id="room")
        node.pass_time(9)
        missed = await bob.connect()
        assert [body["data"]["text"] for _, body in missed] == ["one", "two"]
        assert bob.recovered
        assert bob.welcome["session_id"] == "room"
        await bob.call("send", session_id="room", data={"text": "back"})
        node.pass_time(20)
        await sweep(node)
        event, body = await ann.next()
        assert (event, body["data"]) == ("message", {"text": "back"}), (
            "no leave and no join is announced"
        )
        await check_empty(node, ann, bob)


async def test_late_recovery_shows_a_leave_and_a_join() -> None:
    async with running() as node:
        ann, bob, carl = [await session_client(node, user) for user in ("ann", "bob", "carl")]
        assert [(await ann.next())[1]["user_id"] for _ in range(2)] == ["bob", "carl"]
        assert (await bob.next())[1]["user_id"] == "carl"
        await carl.cut()
        await bob.cut()
        node.pass_time(11)
        await sweep(node)
        await ann.call("participants", session_id="room")
        missed = await bob.connect()
        assert [(event, body["user_id"]) for event, body in missed] == [("user_left", "carl")]
        missed = await carl.connect()
        events = [(event, body["user_id"]) for event, body in missed]
        assert events == [("user_left", "bob"), ("user_joined", "bob")], "no event about itself"
        assert (await ann.next())[0] == "user_joined"
        await check_empty(node, ann, bob, carl)


async def test_client_naming_a_new_session_does_not_recover() -> None:
    async with running() as node:
        ann, bob = (
            await session_client(node, "ann", "old"),
            await session_client(node, "bob", "old"),
        )
        assert (await ann.next())[0] == "user_joined"
        await bob.cut()
        await ann.call("send", session_id="old", data={"text": "where are you"})
        assert await bob.connect(session_id="new") == []
        assert not bob.recovered
        assert bob.welcome["session_id"] == "new"
        assert (await bob.call("send", session_id="new", data={}))["ok"]
        answer = await bob.call("send", session_id="old", data={})
        assert answer["error"]["code"] == "session.not_joined"
        node.pass_time(11)
        await sweep(node)
        events = [(await ann.next())[0] for _ in range(2)]
        assert events == ["message", "user_left"], "the member of another session has left"
        await check_empty(node, ann, bob)


async def test_client_may_resume_naming_any_joined_session() -> None:
    async with running() as node:
        bob = await session_client(node, "bob", "first")
        await bob.call("join", session_id="second")
        for session_id in ("second", None, "first"):
            await bob.cut()
            assert await bob.connect(session_id=session_id) == []
            assert bob.recovered
            assert bob.welcome.get("session_id") == session_id
        await bob.call("leave", session_id="first")
        await bob.cut()
        assert await bob.connect() == []
        assert bob.recovered, "a stock client repeats its first auth"
        assert "session_id" not in bob.welcome
        assert (await bob.call("send", session_id="second", data={}))["ok"]
        await check_empty(node, bob)


async def test_recovered_member_gets_no_join_from_before_its_own() -> None:
    async with running() as node:
        bob = RecoveringClient(node, "bob", "/session")
        await bob.connect()
        ann, carl = await session_client(node, "ann"), await session_client(node, "carl")
        assert (await bob.call("join", session_id="room"))["participant_count"] == 3
        await bob.cut()
        assert await bob.connect() == []
        assert bob.recovered
        await check_empty(node, ann, bob, carl)


async def test_half_open_connection_closes_on_recovery() -> None:
    async with running() as node:
        ann = await market_client(node, "TRADES:A")
        other = RecoveringClient(node, "ann", "/session")
        other.auth, other.client = {"session_id": "room"}, ann.client
        await other.connect_namespace()
        old = ann.wire
        await publish_trades(node, 1)
        ann.client = other.client = None
        missed = await ann.connect()
        assert trade_ids(missed) == [1]
        assert ann.recovered
        await old.until_closed()
        other.client = ann.client
        assert await other.connect_namespace() == []
        assert other.recovered
        assert node.residue()["sockets"] == 1
        await check_empty(node, ann)


async def test_client_without_an_offset_recovers_everything() -> None:
    async with running() as node:
        ann = await market_client(node, "TRADES:A")
        ann.offset = None
        await publish_trades(node, 1)
        await ann.cut()
        await publish_trades(node, 2)
        missed = await ann.connect()
        assert trade_ids(missed) == [1, 2]
        assert ann.recovered
        await check_empty(node, ann)


@pytest.mark.parametrize("namespace", ["/market", "/session"])
async def test_stolen_pid_recovers_nothing_and_stays_usable(
    namespace: str,
) -> None:
    async with running() as node:
        ann = RecoveringClient(node, "ann", namespace)
        if namespace == "/session":
            ann.auth = {"session_id": "room"}
        await ann.connect()
        if namespace == "/market":
            await ann.call("subscribe", topics=["TRADES:A"])
        await ann.cut()
        await publish_trades(node, 1)
        other = "/market" if namespace == "/session" else "/session"
        impostors = [
            RecoveringClient(node, "eve", namespace),
            RecoveringClient(node, "ann", namespace, org="acme"),
            RecoveringClient(node, "ann", other),
        ]
        for impostor in impostors:
            impostor.pid, impostor.offset = ann.pid, ann.offset
            assert await impostor.connect() == []
            assert not impostor.recovered
            assert ann.pid not in (None, impostor.pid)
            assert impostor.sid != ann.sid
        assert len(await ann.connect()) == (1 if namespace == "/market" else 0)
        assert ann.recovered
        await check_empty(node, ann, *impostors)


@pytest.mark.parametrize(
    "forged", ["", "nonsense", "zzzz-1", "TAG-999999999", "TAG--1", "TAG-", "TAG-" + "9" * 40]
)
async def test_forged_offset_recovers_nothing(forged: str) -> None:
    async with running() as node:
        ann = await market_client(node, "TRADES:A")
        assert ann.offset is not None
        await ann.cut()
        await publish_trades(node, 1)
        ann.offset = forged.replace("TAG", ann.offset.partition("-")[0])
        sid = ann.sid
        assert await ann.connect() == []
        assert (ann.recovered, ann.sid == sid) == (False, False)
        assert (await ann.call("subscriptions"))["topics"] == {}
        await check_empty(node, ann)


async def test_bad_token_leaves_the_ticket_to_its_owner() -> None:
    async with running() as node:
        ann = await market_client(node, "TRADES:A")
        await ann.cut()
        await publish_trades(node, 1)
        bad_tokens = [None, "nonsense", node.token(ttl_seconds=-11), node.token(secret="x" * 40)]
        for token in bad_tokens:
            with pytest.raises(PermissionError, match=r"auth\."):
                await ann.connect(token=token)
            ann.wire.cut()
        assert trade_ids(await ann.connect()) == [1]
        assert ann.recovered
        await check_empty(node, ann)


@pytest.mark.parametrize(
    ("namespace", "narrow"),
    [
        ("/market", {"symbols": ["B*"]}),
        ("/market", {"scopes": [Scope.SESSION_JOIN]}),
        ("/session", {"sessions": ["other"]}),
        ("/session", {"scopes": [Scope.MARKET_READ]}),
    ],
)
async def test_narrower_token_does_not_recover(namespace: str, narrow: dict[str, Any]) -> None:
    async with running() as node:
        ann = RecoveringClient(node, "ann", namespace)
        await ann.connect()
        speaker = await session_client(node, "bob")
        if namespace == "/market":
            await ann.call("subscribe", topics=["TRADES:A"])
        else:
            await ann.call("join", session_id="room")
        await ann.cut()
        await publish_trades(node, 1)
        await speaker.call("send", session_id="room", data={"secret": 1})
        ann.token = narrow
        assert await ann.connect() == []
        assert not ann.recovered
        await check_empty(node, ann, speaker)


async def test_ticket_expires_without_a_sweep() -> None:
    async with running() as node:
        ann = await market_client(node, "TRADES:A")
        await ann.cut()
        await publish_trades(node, 1)
        node.clock.advance(120)
        assert await ann.connect() == []
        assert not ann.recovered
        await check_empty(node, ann)


@pytest.mark.parametrize("namespace", ["/market", "/session"])
@pytest.mark.parametrize("end", ["4[[", "41{namespace},"])
async def test_disconnect_or_protocol_error_is_not_resumable(namespace: str, end: str) -> None:
    async with running() as node:
        ann = RecoveringClient(node, "ann", namespace)
        await ann.connect()
        ann.wire.send(end.format(namespace=namespace))
        await until(lambda: not node.residue()["registry"])
        assert node.residue()["tickets"] == 0
        ann.wire.cut()
        assert await ann.connect() == []
        assert not ann.recovered
        await check_empty(node, ann)


async def test_join_and_kick_during_a_sweep_are_kept() -> None:
    async with running() as node:
        broker, sessions = node.server.backend.broker, node.server.sessions.service
        first, rejoined, kicked = [
            await session_client(node, user, user) for user in ("a", "b", "c")
        ]
        for client in (first, rejoined, kicked):
            await client.cut()
        node.pass_time(121)
        chair = await session_client(node, "chair", scopes=MODERATOR)
        started, proceed = asyncio.Event(), asyncio.Event()
        unwatch = broker.unwatch

        async def delayed_unwatch(channel: str) -> None:
            if not started.is_set():
                started.set()
                await proceed.wait()
            await unwatch(channel)

        broker.unwatch = delayed_unwatch  # type: ignore[method-assign]
        sweeping = asyncio.ensure_future(sweep(node))
        await started.wait()
        assert await rejoined.connect() == []
        assert not rejoined.recovered
        await chair.call("kick", session_id="c", user_id="c")
        proceed.set()
        await sweeping
        assert sessions.is_member(rejoined.sid, "default", "b")
        assert (await rejoined.call("send", session_id="b", data={}))["ok"]
        await check_empty(node, chair, first, rejoined, kicked)


@pytest.mark.parametrize("is_cut", [False, True])
async def test_kicked_member_does_not_recover(is_cut: bool) -> None:
    async with running() as node:
        chair = await session_client(node, "chair", scopes=MODERATOR)
        bob = await session_client(node, "bob")
        if is_cut:
            await bob.cut()
        reply = await chair.call("kick", session_id="room", user_id="bob")
        assert reply == {"ok": True, "connections": 0 if is_cut else 1}
        if not is_cut:
            await bob.cut()
        await chair.call("send", session_id="room", data={"behind": "his back"})
        bob.auth = {}
        assert await bob.connect() == []
        assert not bob.recovered
        await check_empty(node, chair, bob)


async def test_member_kicked_after_the_grace_period_does_not_recover() -> None:
    async with running() as node:
        chair = await session_client(node, "chair", scopes=MODERATOR)
        bob = await session_client(node, "bob")
        assert (await chair.next())[0] == "user_joined"
        await bob.cut()
        node.pass_time(11)
        await sweep(node)
        answer = await chair.call("kick", session_id="room", user_id="bob")
        assert answer["error"]["code"] == "session.not_joined"
        bob.auth = {}
        assert await bob.connect() == []
        assert not bob.recovered
        answer = await bob.call("send", session_id="room", data={})
        assert answer["error"]["code"] == "session.not_joined"
        reply = await chair.call("participants", session_id="room")
        assert [each["user_id"] for each in reply["participants"]] == ["chair"]
        await check_empty(node, chair, bob)


async def test_kick_of_a_slow_consumer_drops_its_ticket() -> None:
    async with running({"delivery.buffer_bytes": 1024}) as node:
        chair = await session_client(node, "chair", scopes=MODERATOR)
        bob = await session_client(node, "bob")
        client = node.server.clients.context.find_client(bob.sid)
        assert client is not None
        bob.wire.pause_reading()
        while client.link.buffered_bytes < 1024:
            client.link.write(b"\x81\x7e\x03\xe8" + b"2" * 1000)
        reply = await chair.call("kick", session_id="room", user_id="bob")
        assert reply["ok"]
        assert node.residue()["tickets"] == 1, "only the moderator's"
        assert node.server.delivery.hub._registry.parked == {}
        bob.wire.cut()
        bob.client = None
        await check_empty(node, chair)


async def test_parked_member_gets_messages_before_session_closed() -> None:
    async with running() as node:
        chair = await session_client(node, "chair", scopes=MODERATOR)
        bob = await session_client(node, "bob")
        await bob.cut()
        await chair.call("send", session_id="room", data={"last": "words"})
        assert (await chair.call("close", session_id="room"))["ok"]
        missed = await bob.connect()
        assert [event for event, _ in missed] == ["message", "session_closed"]
        assert bob.recovered
        assert "session_id" not in bob.welcome
        reply = await bob.call("send", session_id="room", data={})
        assert reply["error"]["code"] == "session.closed"
        await check_empty(node, chair, bob)


async def test_expired_session_does_not_recover_into_its_successor() -> None:
    short = {"session.retention_seconds": 20}
    async with running(short) as node:
        ann = await session_client(node, "ann")
        await ann.call("send", session_id="room", data={"old": 1})
        await ann.cut()
        node.pass_time(11)
        await sweep(node)
        node.pass_time(21)
        await sweep(node)
        bob = await session_client(node, "bob")
        await bob.call("send", session_id="room", data={"new": 1})
        history = await bob.call("history", session_id="room")
        assert [(each["seq"], each["data"]) for each in history["messages"]] == [(1, {"new": 1})]
        ann.auth = {}
        assert await ann.connect() == []
        assert not ann.recovered
        await check_empty(node, ann, bob)


async def test_client_without_recovery_gets_no_pid_and_no_offset() -> None:
    async with running() as node:
        ann = RecoveringClient(node, "ann", "/market")
        ann.auth = {"recovery": False}
        await ann.connect()
        assert (ann.pid, ann.offset) == (None, None)
        await ann.call("subscribe", topics=["TRADES:A"])
        await publish_trades(node, 1)
        assert trade_ids([await ann.next()]) == [1]
        assert ann.offset is None
        await ann.cut()
        await node.until_empty()
    async with running({"recovery.window_seconds": 0}) as node:
        ann = RecoveringClient(node, "ann", "/market")
        await ann.connect()
        assert (ann.pid, ann.offset, ann.welcome["resume_window_ms"]) == (None, None, 0)
        await ann.cut()
        await node.until_empty()


async def test_client_recovers_with_a_new_token_after_expiry() -> None:
    async with running() as node:
        ann = await market_client(node, "TRADES:A", ttl_seconds=20)
        node.pass_time(0.1)
        assert (await ann.next())[0] == "token_expiring"
        node.pass_time(26)
        assert (await ann.next())[1]["reconnect"] is True
        await ann.wire.until_closed()
        await publish_trades(node, 1)
        assert trade_ids(await ann.connect()) == [1]
        assert ann.recovered
        await check_empty(node, ann)


async def test_parked_client_gets_notices_once() -> None:
    async with running() as node:
        notify = node.server.sessions.notifications.notify
        ann = await session_client(node, "ann")
        await notify("default", "ann", "critical", {}, critical=True, identifier="c1")
        assert (await ann.next())[1]["id"] == "c1"
        await ann.cut()
        assert (await notify("default", "ann", "plain", {}, identifier="p1")).reached == 0
        before = ann.offset
        missed = await ann.connect()
        assert [body["id"] for _, body in missed] == ["p1"]
        assert (await ann.next())[1]["id"] == "c1"
        await ann.cut()
        # The server wrote the events, but the client did not receive them.
        ann.offset = before
        missed = await ann.connect()
        assert [body["id"] for _, body in missed] == ["p1"], "the critical one is not repeated"
        await ann.cut()
        assert await ann.connect() == []
        await check_empty(node, ann)


@pytest.mark.behaviour("B2", "B21", "B22")
async def test_subscriptions_follow_their_connection_state() -> None:
    async with running() as node:
        ann = await market_client(node, "TRADES:A", "PRICE:B")
        phone = await market_client(node, "TRADES:A")
        subscriptions = node.server.market.subscriptions

        def states() -> dict[str, SubscriptionStatus]:
            return {
                each.topic.name: each.status for each in subscriptions.of_user("default", "ann")
            }

        connected, waiting = SubscriptionStatus.CONNECTED, SubscriptionStatus.RECONNECTING
        assert states() == {"TRADES:A": connected, "PRICE:B": connected}
        await ann.cut()
        assert states() == {"TRADES:A": connected, "PRICE:B": waiting}
        await ann.connect()
        assert states() == {"TRADES:A": connected, "PRICE:B": connected}
        await ann.cut()
        await phone.cut()
        assert set(states().values()) == {waiting}
        node.pass_time(60)
        await phone.connect()
        node.pass_time(61)
        await sweep(node)
        assert states()["TRADES:A"] == connected
        assert states()["PRICE:B"] == SubscriptionStatus.DISCONNECTED, "the user's record is kept"
        await phone.cut()
        node.pass_time(121)
        await sweep(node)
        assert states() == {}
        await check_empty(node)


async def test_recovery_restores_the_latest_subscriptions() -> None:
    async with running() as node:
        ann = await market_client(node, "TRADES:A", "TRADES:B")
        await ann.cut()
        await ann.connect()
        await ann.call("unsubscribe", topics=["TRADES:A"])
        await ann.call("subscribe", topics=["PRICE:C"], interval_ms=1000)
        await ann.call("subscribe", topics=["TRADES:D"])
        await ann.cut()
        await publish_trades(node, 1)
        await publish_trades(node, 2, symbol="D")
        assert trade_ids(await ann.connect()) == [2]
        topics = (await ann.call("subscriptions"))["topics"]
        assert set(topics) == {"TRADES:B", "PRICE:C", "TRADES:D"}
        assert topics["PRICE:C"]["interval_ms"] == 1000
        await check_empty(node, ann)


async def test_oldest_ticket_is_evicted_and_a_limit_keeps_tickets() -> None:
    async with running({"recovery.per_user": 2, "limits.connections_per_user": 3}) as node:
        devices = [await market_client(node) for _ in range(3)]
        for device in devices:
            await device.cut()
        assert node.residue()["tickets"] == 2
        await devices[0].connect()
        assert not devices[0].recovered
        others = [await market_client(node) for _ in range(2)]
        with pytest.raises(PermissionError, match=r"limit\.connections"):
            await devices[1].connect()
        devices[1].wire.cut()
        devices[1].client = None
        await others[0].cut()
        await devices[2].connect()
        assert devices[2].recovered, "the oldest ticket was evicted"
        await check_empty(node, *devices, *others)


async def test_polling_client_recovers_and_upgrades() -> None:
    async with running() as node, aiohttp.ClientSession() as http:
        ann = await market_client(node, "TRADES:A")
        await ann.cut()
        await publish_trades(node, 1, 2)
        url = f"{node.url}/socket.io/?EIO=4&transport=polling"
        async with http.get(url) as response:
            sid = json.loads((await response.text())[1:])["sid"]
        auth = {"token": node.token(), "pid": ann.pid, "offset": ann.offset}
        async with http.post(f"{url}&sid={sid}", data=f"40/market,{json.dumps(auth)}") as response:
            assert response.status == 200
        async with http.get(f"{url}&sid={sid}") as response:
            packets = (await response.text()).split("\x1e")
        names = ["40" if each.startswith("40") else each[12:18] for each in packets]
        assert names == ["40", "trades", "trades", "welcom"]
        assert json.loads(packets[0][10:]) == {"sid": ann.sid, "pid": ann.pid}
        socket = await RawClient.open(node.port, query=f"&sid={sid}")
        socket.send("2probe")
        assert await socket.text() == "3probe"
        socket.send("5")
        await publish_trades(node, 3)
        assert trade_ids([await socket.event()]) == [3]
        ann.client = socket
        await check_empty(node, ann)


async def test_client_dropped_during_recovery_may_retry() -> None:
    async with running({"delivery.buffer_bytes": 4096}) as node:
        notify = node.server.sessions.notifications.notify
        ann = await session_client(node, "ann")
        await ann.cut()
        for number in range(20):
            await notify("default", "ann", "much", {"padding": "x" * 1000, "number": number})
        # A polling client must fetch the written packets: none is in the network yet.
        url = f"{node.url}/socket.io/?EIO=4&transport=polling"
        async with aiohttp.ClientSession() as http:
            async with http.get(url) as response:
                sid = json.loads((await response.text())[1:])["sid"]
            auth = {"token": node.token(), "pid": ann.pid, "offset": ann.offset}
            packet = f"40/session,{json.dumps(auth)}"
            async with http.post(f"{url}&sid={sid}", data=packet) as response:
                assert response.status == 400
        assert [node.residue()[name] for name in ("registry", "links", "tickets")] == [0, 0, 1]
        assert len(await ann.connect()) == 20, "a WebSocket has room for all"
        assert ann.recovered
        await check_empty(node, ann)


@pytest.mark.parametrize("namespace", ["/market", "/session"])
async def test_exception_during_recovery_leaves_nothing(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr("server.delivery.recovery.plan_resume", fail)
    async with running() as node:
        ann = RecoveringClient(node, "ann", namespace)
        await ann.connect()
        await ann.cut()
        with pytest.raises(PermissionError, match=r"server\.internal"):
            await ann.connect()
        ann.wire.cut()
        ann.client = None
        await node.until_empty()
        assert await ann.connect() == []
        assert not ann.recovered
        await check_empty(node, ann)


async def test_recovery_is_one_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writes: list[bytes] = []
    write = WebSocketCarrier.write

    def recorded(carrier: WebSocketCarrier, frames: bytes) -> None:
        writes.append(frames)
        write(carrier, frames)

    async with running() as node:
        ann = await market_client(node, "TRADES:A", "TRADES:B")
        await ann.cut()
        await publish_trades(node, 1, 2)
        await publish_trades(node, 3, symbol="B")
        monkeypatch.setattr(
            WebSocketCarrier, "plain_write", property(lambda carrier: partial(recorded, carrier))
        )
        assert trade_ids(await ann.connect()) == [1, 2, 3]
        together = next(each for each in writes if b"40/market," in each)
        assert together.count(b'42/market,["trades"') == 3
        assert b'"welcome"' in together
        await ann.cut()
