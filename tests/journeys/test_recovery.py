"""Cut off and back over real sockets: the same connection, and nothing lost or leaked."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from client_sdk.contract import Scope, SubscriptionStatus
from server.transport.websocket import WebSocketCarrier
from tests.kit.clients.recovering import Event, RecoveringClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running

MODERATOR = (Scope.SESSION_JOIN, Scope.SESSION_MODERATE)


async def market_client(
    node: RunningServer, *topics: str, user: str = "ann", **token: Any
) -> RecoveringClient:
    client = RecoveringClient(node, user, "/market", **token)
    assert await client.connect() == []
    if topics:
        await client.call("subscribe", topics=list(topics))
    return client


async def session_client(
    node: RunningServer, user: str, session_id: str = "room", **token: Any
) -> RecoveringClient:
    client = RecoveringClient(node, user, "/session", **token)
    client.auth = {"session_id": session_id}
    assert await client.connect() == []
    return client


async def publish_trades(node: RunningServer, *numbers: int, symbol: str = "A") -> None:
    for number in numbers:
        each = {"id": number, "price": "1", "qty": "1", "side": "buy", "ts": 1}
        await node.server.publishing.publish(f"TRADES:{symbol}", {"trades": [each]})


def trade_ids(events: list[Event]) -> list[int]:
    return [body["data"]["trades"][0]["id"] for event, body in events if event == "trades"]


async def sweep(node: RunningServer) -> None:
    await node.server.sessions.sweep()
    for namespace in node.server.namespaces:
        await namespace.sweep()


async def check_empty(node: RunningServer, *clients: RecoveringClient) -> None:
    """Everybody is cut off, the window passes, and nothing is left in any table."""
    for client in clients:
        if client.client is not None:
            await client.cut()
    node.pass_time(121)
    await sweep(node)
    await node.until_empty()
    server = node.server
    assert server.sessions.local_presence._parked == {}
    assert server.hub._registry.parked == {}
    assert server.sessions.local_presence._initial_sessions == {}
    assert server.subscriptions._parked == set()
    for tickets in (server.market_tickets, server.session_tickets):
        assert (len(tickets), tickets.parked_count, tickets._parked_by_owner) == (0, 0, {})


@pytest.mark.behaviour("E14")
async def test_a_cut_client_is_back_as_itself_with_what_it_missed_again_and_again() -> None:
    async with running() as floor:
        ann = await market_client(floor, "TRADES:A", "PRICE:A")
        sid, pid = ann.sid, ann.pid
        assert ann.offset is not None, "the welcome gives the first one"
        number = 0
        for _ in range(4):
            await ann.cut()
            await publish_trades(floor, number + 1, number + 2)
            await floor.server.publishing.publish("PRICE:A", PRICE)
            missed = await ann.connect()
            assert trade_ids(missed) == [number + 1, number + 2]
            assert [event for event, _ in missed].count("price") == 1
            assert (ann.recovered, ann.sid, ann.pid) == (True, sid, pid)
            await publish_trades(floor, number + 3)
            number += 3
            assert trade_ids([await ann.next()]) == [number]
        assert ann.welcome["server_time"] == int(floor.clock.time() * 1000)
        assert ann.welcome["resume_window_ms"] == 120_000
        await check_empty(floor, ann)


async def test_a_session_goes_on_where_it_was_and_nobody_notices() -> None:
    async with running() as floor:
        ann, bob = await session_client(floor, "ann"), await session_client(floor, "bob")
        assert (await ann.next())[0] == "user_joined"
        await bob.cut()
        for text in ("one", "two"):
            await ann.call("send", session_id="room", data={"text": text})
        await ann.call("participants", session_id="room")
        floor.pass_time(9)
        missed = await bob.connect()
        assert [body["data"]["text"] for _, body in missed] == ["one", "two"]
        assert bob.recovered
        assert bob.welcome["session_id"] == "room"
        await bob.call("send", session_id="room", data={"text": "back"})
        floor.pass_time(20)
        await sweep(floor)
        event, body = await ann.next()
        assert (event, body["data"]) == ("message", {"text": "back"}), "nobody left, nobody came"
        await check_empty(floor, ann, bob)


async def test_who_is_back_after_the_grace_time_was_seen_to_go_and_to_come() -> None:
    async with running() as floor:
        ann, bob, carl = [await session_client(floor, user) for user in ("ann", "bob", "carl")]
        assert [(await ann.next())[1]["user_id"] for _ in range(2)] == ["bob", "carl"]
        assert (await bob.next())[1]["user_id"] == "carl"
        await carl.cut()
        await bob.cut()
        floor.pass_time(11)
        await sweep(floor)
        await ann.call("participants", session_id="room")
        missed = await bob.connect()
        assert [(event, body["user_id"]) for event, body in missed] == [("user_left", "carl")]
        missed = await carl.connect()
        told = [(event, body["user_id"]) for event, body in missed]
        assert told == [("user_left", "bob"), ("user_joined", "bob")], "and nothing of itself"
        assert (await ann.next())[0] == "user_joined"
        await check_empty(floor, ann, bob, carl)


async def test_who_names_another_session_than_before_begins_there_and_is_in_it_alone() -> None:
    async with running() as floor:
        ann, bob = (
            await session_client(floor, "ann", "old"),
            await session_client(floor, "bob", "old"),
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
        floor.pass_time(11)
        await sweep(floor)
        told = [(await ann.next())[0] for _ in range(2)]
        assert told == ["message", "user_left"], "who went elsewhere has gone"
        await check_empty(floor, ann, bob)


async def test_who_names_a_session_that_it_came_into_later_is_back_as_itself() -> None:
    async with running() as floor:
        bob = await session_client(floor, "bob", "first")
        await bob.call("join", session_id="second")
        for session_id in ("second", None, "first"):
            await bob.cut()
            assert await bob.connect(session_id=session_id) == []
            assert bob.recovered
            assert bob.welcome.get("session_id") == session_id
        await bob.call("leave", session_id="first")
        await bob.cut()
        assert await bob.connect() == []
        assert bob.recovered, "it names what it named before, as a stock client does"
        assert "session_id" not in bob.welcome
        assert (await bob.call("send", session_id="second", data={}))["ok"]
        await check_empty(floor, bob)


async def test_what_was_told_before_it_came_is_not_told_to_who_is_back() -> None:
    async with running() as floor:
        bob = RecoveringClient(floor, "bob", "/session")
        await bob.connect()
        ann, carl = await session_client(floor, "ann"), await session_client(floor, "carl")
        assert (await bob.call("join", session_id="room"))["participant_count"] == 3
        await bob.cut()
        assert await bob.connect() == []
        assert bob.recovered
        await check_empty(floor, ann, bob, carl)


async def test_half_open_connections_are_ended_when_their_client_is_back() -> None:
    async with running() as floor:
        ann = await market_client(floor, "TRADES:A")
        other = RecoveringClient(floor, "ann", "/session")
        other.auth, other.client = {"session_id": "room"}, ann.client
        await other.connect_namespace()
        old = ann.wire
        await publish_trades(floor, 1)
        ann.client = other.client = None
        missed = await ann.connect()
        assert trade_ids(missed) == [1]
        assert ann.recovered
        await old.until_closed()
        other.client = ann.client
        assert await other.connect_namespace() == []
        assert other.recovered
        assert floor.residue()["sockets"] == 1
        await check_empty(floor, ann)


async def test_who_had_received_nothing_yet_is_back_with_everything() -> None:
    async with running() as floor:
        ann = await market_client(floor, "TRADES:A")
        ann.offset = None
        await publish_trades(floor, 1)
        await ann.cut()
        await publish_trades(floor, 2)
        missed = await ann.connect()
        assert trade_ids(missed) == [1, 2]
        assert ann.recovered
        await check_empty(floor, ann)


@pytest.mark.parametrize("namespace", ["/market", "/session"])
async def test_somebody_elses_secret_opens_nothing_and_its_owner_is_back_all_the_same(
    namespace: str,
) -> None:
    async with running() as floor:
        ann = RecoveringClient(floor, "ann", namespace)
        if namespace == "/session":
            ann.auth = {"session_id": "room"}
        await ann.connect()
        if namespace == "/market":
            await ann.call("subscribe", topics=["TRADES:A"])
        await ann.cut()
        await publish_trades(floor, 1)
        other = "/market" if namespace == "/session" else "/session"
        thieves = [
            RecoveringClient(floor, "eve", namespace),
            RecoveringClient(floor, "ann", namespace, org="acme"),
            RecoveringClient(floor, "ann", other),
        ]
        for thief in thieves:
            thief.pid, thief.offset = ann.pid, ann.offset
            assert await thief.connect() == []
            assert not thief.recovered
            assert ann.pid not in (None, thief.pid)
            assert thief.sid != ann.sid
        assert len(await ann.connect()) == (1 if namespace == "/market" else 0)
        assert ann.recovered
        await check_empty(floor, ann, *thieves)


@pytest.mark.parametrize(
    "forged", ["", "nonsense", "zzzz-1", "TAG-999999999", "TAG--1", "TAG-", "TAG-" + "9" * 40]
)
async def test_a_forged_offset_recovers_nothing_and_tells_nothing(forged: str) -> None:
    async with running() as floor:
        ann = await market_client(floor, "TRADES:A")
        assert ann.offset is not None
        await ann.cut()
        await publish_trades(floor, 1)
        ann.offset = forged.replace("TAG", ann.offset.partition("-")[0])
        sid = ann.sid
        assert await ann.connect() == []
        assert (ann.recovered, ann.sid == sid) == (False, False)
        assert (await ann.call("subscriptions"))["topics"] == {}
        await check_empty(floor, ann)


async def test_the_token_is_judged_first_and_a_refusal_costs_the_owner_nothing() -> None:
    async with running() as floor:
        ann = await market_client(floor, "TRADES:A")
        await ann.cut()
        await publish_trades(floor, 1)
        bad = [None, "nonsense", floor.token(ttl_seconds=0), floor.token(secret="x" * 40)]
        for token in bad:
            with pytest.raises(PermissionError, match=r"auth\."):
                await ann.connect(token=token)
            ann.wire.cut()
        assert trade_ids(await ann.connect()) == [1]
        assert ann.recovered
        await check_empty(floor, ann)


@pytest.mark.parametrize(
    ("namespace", "narrow"),
    [
        ("/market", {"symbols": ["B*"]}),
        ("/market", {"scopes": [Scope.SESSION_JOIN]}),
        ("/session", {"sessions": ["other"]}),
        ("/session", {"scopes": [Scope.MARKET_READ]}),
    ],
)
async def test_a_narrower_token_does_not_get_back_what_it_may_not_have(
    namespace: str, narrow: dict[str, Any]
) -> None:
    async with running() as floor:
        ann = RecoveringClient(floor, "ann", namespace)
        await ann.connect()
        speaker = await session_client(floor, "bob")
        if namespace == "/market":
            await ann.call("subscribe", topics=["TRADES:A"])
        else:
            await ann.call("join", session_id="room")
        await ann.cut()
        await publish_trades(floor, 1)
        await speaker.call("send", session_id="room", data={"secret": 1})
        ann.token = narrow
        assert await ann.connect() == []
        assert not ann.recovered
        await check_empty(floor, ann, speaker)


async def test_past_the_window_nobody_is_back_even_before_anybody_has_looked() -> None:
    async with running() as floor:
        ann = await market_client(floor, "TRADES:A")
        await ann.cut()
        await publish_trades(floor, 1)
        floor.clock.advance(120)
        assert await ann.connect() == []
        assert not ann.recovered
        await check_empty(floor, ann)


@pytest.mark.parametrize("namespace", ["/market", "/session"])
@pytest.mark.parametrize("end", ["4[[", "41{namespace},"])
async def test_who_left_or_broke_the_protocol_does_not_come_back(namespace: str, end: str) -> None:
    async with running() as floor:
        ann = RecoveringClient(floor, "ann", namespace)
        await ann.connect()
        ann.wire.send(end.format(namespace=namespace))
        await until(lambda: not floor.residue()["registry"])
        assert floor.residue()["tickets"] == 0
        ann.wire.cut()
        assert await ann.connect() == []
        assert not ann.recovered
        await check_empty(floor, ann)


async def test_who_comes_or_is_kicked_while_others_are_given_up_is_not_given_up_twice() -> None:
    async with running() as floor:
        broker, sessions = floor.server.broker, floor.server.sessions
        first, again, kicked = [await session_client(floor, user, user) for user in ("a", "b", "c")]
        for client in (first, again, kicked):
            await client.cut()
        floor.pass_time(121)
        chair = await session_client(floor, "chair", scopes=MODERATOR)
        asked, answered = asyncio.Event(), asyncio.Event()
        unwatch = broker.unwatch

        async def slow(channel: str) -> None:
            if not asked.is_set():
                asked.set()
                await answered.wait()
            await unwatch(channel)

        broker.unwatch = slow  # type: ignore[method-assign]
        sweeping = asyncio.ensure_future(sweep(floor))
        await asked.wait()
        assert await again.connect() == []
        assert not again.recovered
        await chair.call("kick", session_id="c", user_id="c")
        answered.set()
        await sweeping
        assert sessions.is_member(again.sid, "default", "b")
        assert (await again.call("send", session_id="b", data={}))["ok"]
        await check_empty(floor, chair, first, again, kicked)


@pytest.mark.parametrize("away", [False, True])
async def test_who_was_kicked_comes_back_as_somebody_new(away: bool) -> None:
    async with running() as floor:
        chair = await session_client(floor, "chair", scopes=MODERATOR)
        bob = await session_client(floor, "bob")
        if away:
            await bob.cut()
        reply = await chair.call("kick", session_id="room", user_id="bob")
        assert reply == {"ok": True, "connections": 0 if away else 1}
        if not away:
            await bob.cut()
        await chair.call("send", session_id="room", data={"behind": "his back"})
        bob.auth = {}
        assert await bob.connect() == []
        assert not bob.recovered
        await check_empty(floor, chair, bob)


async def test_who_was_kicked_when_given_up_already_does_not_come_back_into_the_session() -> None:
    async with running() as floor:
        chair = await session_client(floor, "chair", scopes=MODERATOR)
        bob = await session_client(floor, "bob")
        assert (await chair.next())[0] == "user_joined"
        await bob.cut()
        floor.pass_time(11)
        await sweep(floor)
        answer = await chair.call("kick", session_id="room", user_id="bob")
        assert answer["error"]["code"] == "session.not_joined"
        bob.auth = {}
        assert await bob.connect() == []
        assert not bob.recovered
        answer = await bob.call("send", session_id="room", data={})
        assert answer["error"]["code"] == "session.not_joined"
        there = await chair.call("participants", session_id="room")
        assert [each["user_id"] for each in there["participants"]] == ["chair"]
        await check_empty(floor, chair, bob)


async def test_a_kick_leaves_nothing_of_who_reads_too_slowly_to_hear_of_it() -> None:
    async with running({"delivery.buffer_bytes": 1024}) as floor:
        chair = await session_client(floor, "chair", scopes=MODERATOR)
        bob = await session_client(floor, "bob")
        peer = floor.server.context.find_client(bob.sid)
        assert peer is not None
        bob.wire.pause_reading()
        while peer.link.buffered_bytes < 1024:
            peer.link.write(b"\x81\x7e\x03\xe8" + b"2" * 1000)
        reply = await chair.call("kick", session_id="room", user_id="bob")
        assert reply["ok"]
        assert floor.residue()["tickets"] == 1, "only the chair's"
        assert floor.server.hub._registry.parked == {}
        bob.wire.cut()
        bob.client = None
        await check_empty(floor, chair)


async def test_who_was_away_when_the_session_was_closed_hears_it_behind_what_was_said() -> None:
    async with running() as floor:
        chair = await session_client(floor, "chair", scopes=MODERATOR)
        bob = await session_client(floor, "bob")
        await bob.cut()
        await chair.call("send", session_id="room", data={"last": "words"})
        assert (await chair.call("close", session_id="room"))["ok"]
        missed = await bob.connect()
        assert [event for event, _ in missed] == ["message", "session_closed"]
        assert bob.recovered
        assert "session_id" not in bob.welcome
        reply = await bob.call("send", session_id="room", data={})
        assert reply["error"]["code"] == "session.closed"
        await check_empty(floor, chair, bob)


async def test_a_session_that_began_anew_is_not_taken_for_the_one_before() -> None:
    short = {"session.retention_seconds": 20}
    async with running(short) as floor:
        ann = await session_client(floor, "ann")
        await ann.call("send", session_id="room", data={"old": 1})
        await ann.cut()
        floor.pass_time(11)
        await sweep(floor)
        floor.pass_time(21)
        await sweep(floor)
        bob = await session_client(floor, "bob")
        await bob.call("send", session_id="room", data={"new": 1})
        history = await bob.call("history", session_id="room")
        assert [(each["seq"], each["data"]) for each in history["messages"]] == [(1, {"new": 1})]
        ann.auth = {}
        assert await ann.connect() == []
        assert not ann.recovered
        await check_empty(floor, ann, bob)


async def test_without_recovery_there_is_no_secret_and_no_offset() -> None:
    async with running() as floor:
        ann = RecoveringClient(floor, "ann", "/market")
        ann.auth = {"recovery": False}
        await ann.connect()
        assert (ann.pid, ann.offset) == (None, None)
        await ann.call("subscribe", topics=["TRADES:A"])
        await publish_trades(floor, 1)
        assert trade_ids([await ann.next()]) == [1]
        assert ann.offset is None
        await ann.cut()
        await floor.until_empty()
    async with running({"recovery.window_seconds": 0}) as floor:
        ann = RecoveringClient(floor, "ann", "/market")
        await ann.connect()
        assert (ann.pid, ann.offset, ann.welcome["resume_window_ms"]) == (None, None, 0)
        await ann.cut()
        await floor.until_empty()


async def test_a_token_that_ended_is_followed_by_a_new_one_and_nothing_is_lost() -> None:
    async with running() as floor:
        ann = await market_client(floor, "TRADES:A", ttl_seconds=20)
        floor.pass_time(0.1)
        assert (await ann.next())[0] == "token_expiring"
        floor.pass_time(26)
        assert (await ann.next())[1]["reconnect"] is True
        await ann.wire.until_closed()
        await publish_trades(floor, 1)
        assert trade_ids(await ann.connect()) == [1]
        assert ann.recovered
        await check_empty(floor, ann)


async def test_notices_of_who_is_away_are_told_once_and_critical_ones_asked_again() -> None:
    async with running() as floor:
        notify = floor.server.notifications.notify
        ann = await session_client(floor, "ann")
        await notify("default", "ann", "critical", {}, critical=True, identifier="c1")
        assert (await ann.next())[1]["id"] == "c1"
        await ann.cut()
        assert (await notify("default", "ann", "plain", {}, identifier="p1")).reached == 0
        before = ann.offset
        missed = await ann.connect()
        assert [body["id"] for _, body in missed] == ["p1"]
        assert (await ann.next())[1]["id"] == "c1"
        await ann.cut()
        # What was written did not arrive.
        ann.offset = before
        missed = await ann.connect()
        assert [body["id"] for _, body in missed] == ["p1"], "not twice"
        await ann.cut()
        assert await ann.connect() == []
        await check_empty(floor, ann)


@pytest.mark.behaviour("B2", "B21", "B22")
async def test_subscriptions_wait_for_their_connection_and_go_with_it() -> None:
    async with running() as floor:
        ann = await market_client(floor, "TRADES:A", "PRICE:B")
        phone = await market_client(floor, "TRADES:A")
        subscriptions = floor.server.subscriptions

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
        floor.pass_time(60)
        await phone.connect()
        floor.pass_time(61)
        await sweep(floor)
        assert states()["TRADES:A"] == connected
        assert states()["PRICE:B"] == SubscriptionStatus.DISCONNECTED, "the user's record stays"
        await phone.cut()
        floor.pass_time(121)
        await sweep(floor)
        assert states() == {}
        await check_empty(floor)


async def test_what_was_left_stays_left_and_what_came_later_is_there() -> None:
    async with running() as floor:
        ann = await market_client(floor, "TRADES:A", "TRADES:B")
        await ann.cut()
        await ann.connect()
        await ann.call("unsubscribe", topics=["TRADES:A"])
        await ann.call("subscribe", topics=["PRICE:C"], interval_ms=1000)
        await ann.call("subscribe", topics=["TRADES:D"])
        await ann.cut()
        await publish_trades(floor, 1)
        await publish_trades(floor, 2, symbol="D")
        assert trade_ids(await ann.connect()) == [2]
        topics = (await ann.call("subscriptions"))["topics"]
        assert set(topics) == {"TRADES:B", "PRICE:C", "TRADES:D"}
        assert topics["PRICE:C"]["interval_ms"] == 1000
        await check_empty(floor, ann)


async def test_the_oldest_make_room_and_a_limit_reached_refuses_without_giving_up() -> None:
    async with running({"recovery.per_user": 2, "limits.connections_per_user": 3}) as floor:
        devices = [await market_client(floor) for _ in range(3)]
        for device in devices:
            await device.cut()
        assert floor.residue()["tickets"] == 2
        await devices[0].connect()
        assert not devices[0].recovered
        others = [await market_client(floor) for _ in range(2)]
        with pytest.raises(PermissionError, match=r"limit\.connections"):
            await devices[1].connect()
        devices[1].wire.cut()
        devices[1].client = None
        await others[0].cut()
        await devices[2].connect()
        assert devices[2].recovered, "the oldest made room for the one that came last"
        await check_empty(floor, *devices, *others)


async def test_who_polls_is_back_too_and_goes_on_over_a_websocket() -> None:
    async with running() as floor, aiohttp.ClientSession() as http:
        ann = await market_client(floor, "TRADES:A")
        await ann.cut()
        await publish_trades(floor, 1, 2)
        url = f"{floor.url}/socket.io/?EIO=4&transport=polling"
        async with http.get(url) as response:
            sid = json.loads((await response.text())[1:])["sid"]
        auth = {"token": floor.token(), "pid": ann.pid, "offset": ann.offset}
        async with http.post(f"{url}&sid={sid}", data=f"40/market,{json.dumps(auth)}") as response:
            assert response.status == 200
        async with http.get(f"{url}&sid={sid}") as response:
            packets = (await response.text()).split("\x1e")
        names = ["40" if each.startswith("40") else each[12:18] for each in packets]
        assert names == ["40", "trades", "trades", "welcom"]
        assert json.loads(packets[0][10:]) == {"sid": ann.sid, "pid": ann.pid}
        socket = await RawClient.open(floor.port, query=f"&sid={sid}")
        socket.send("2probe")
        assert await socket.text() == "3probe"
        socket.send("5")
        await publish_trades(floor, 3)
        assert trade_ids([await socket.event()]) == [3]
        ann.client = socket
        await check_empty(floor, ann)


async def test_who_is_let_go_while_it_is_served_leaves_nothing_and_may_try_again() -> None:
    async with running({"delivery.buffer_bytes": 4096}) as floor:
        notify = floor.server.notifications.notify
        ann = await session_client(floor, "ann")
        await ann.cut()
        for number in range(20):
            await notify("default", "ann", "much", {"padding": "x" * 1000, "number": number})
        # Who polls has to fetch what is written: nothing of it is in the network yet.
        url = f"{floor.url}/socket.io/?EIO=4&transport=polling"
        async with aiohttp.ClientSession() as http:
            async with http.get(url) as response:
                sid = json.loads((await response.text())[1:])["sid"]
            auth = {"token": floor.token(), "pid": ann.pid, "offset": ann.offset}
            packet = f"40/session,{json.dumps(auth)}"
            async with http.post(f"{url}&sid={sid}", data=packet) as response:
                assert response.status == 400
        assert [floor.residue()[name] for name in ("registry", "links", "tickets")] == [0, 0, 1]
        assert len(await ann.connect()) == 20, "the next way is wider"
        assert ann.recovered
        await check_empty(floor, ann)


@pytest.mark.parametrize("namespace", ["/market", "/session"])
async def test_a_fault_in_the_middle_leaves_nothing_behind(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr("server.delivery.hub.plan_resume", fail)
    async with running() as floor:
        ann = RecoveringClient(floor, "ann", namespace)
        await ann.connect()
        await ann.cut()
        with pytest.raises(PermissionError, match=r"server\.internal"):
            await ann.connect()
        ann.wire.cut()
        ann.client = None
        await floor.until_empty()
        assert await ann.connect() == []
        assert not ann.recovered
        await check_empty(floor, ann)


async def test_the_word_that_a_client_is_back_and_what_it_missed_are_one_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writes: list[bytes] = []
    write = WebSocketCarrier.write

    def recorded(carrier: WebSocketCarrier, frames: bytes) -> None:
        writes.append(frames)
        write(carrier, frames)

    async with running() as floor:
        ann = await market_client(floor, "TRADES:A", "TRADES:B")
        await ann.cut()
        await publish_trades(floor, 1, 2)
        await publish_trades(floor, 3, symbol="B")
        monkeypatch.setattr(WebSocketCarrier, "write", recorded)
        assert trade_ids(await ann.connect()) == [1, 2, 3]
        together = next(each for each in writes if b"40/market," in each)
        assert together.count(b'42/market,["trades"') == 3
        assert b'"welcome"' in together
        await ann.cut()
