"""What the client does about servers that fall silent, send away, or talk nonsense."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from client_sdk import (
    AuthenticationError,
    BackoffConfig,
    Client,
    ClientState,
    FloorcastError,
    ForbiddenError,
    Gap,
    LimitExceeded,
    ProtocolError,
    SendTimeout,
    SessionError,
    TopicError,
    TradesMessage,
)
from tests.kit.clients.sdk import config, in_vain, nothing_left, until
from tests.kit.patience import PATIENCE_SECONDS
from tests.kit.server.scripted import Scripted, Visit, event, vanish


def client_at(server: Scripted, token: Any = "x", **changes: Any) -> Client:
    return Client(server.url, token, config=config(**changes))


async def admitted(visit: Visit) -> None:
    """Let in, and be quiet."""
    await visit.let_in()
    await visit.stay()


def trades(seq: int, prev: int | None = None, **changes: object) -> str:
    body: dict[str, object] = {
        "stream": "TRADES",
        "symbol": "A",
        "type": "update",
        "epoch": "e",
        "seq": seq,
        "prev": seq - 1 if prev is None else prev,
        "ts": 1,
        "data": {"trades": []},
        **changes,
    }
    return event("/market", "trades", **body)


async def test_the_client_says_that_it_needs_no_recovery() -> None:
    auths: list[dict[str, Any]] = []

    async def script(visit: Visit) -> None:
        auths.append(await visit.let_in())
        await visit.stay()

    async with Scripted(script).running() as server, client_at(server):
        assert auths == [{"token": "x", "recovery": False}]


async def test_pings_are_answered_and_a_server_that_falls_silent_is_left() -> None:
    lived, left = asyncio.Event(), asyncio.Event()

    async def script(visit: Visit) -> None:
        # A busy machine may be too late for one of these: then the client comes again.
        await visit.open('0{"sid":"x","pingInterval":80,"pingTimeout":40}')
        await visit.admit()
        for _ in range(3):
            await asyncio.sleep(0.06)
            await visit.say("2", "6")
            assert await visit.hear() == "3"
        lived.set()
        await visit.stay()
        left.set()

    async with Scripted(script).running() as server, nothing_left(), client_at(server):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await lived.wait()
            await left.wait()


async def closes(visit: Visit) -> None:
    await visit.let_in()
    await asyncio.sleep(0.01)
    await visit.say("1")
    await visit.stay()


async def binary(visit: Visit) -> None:
    await visit.let_in()
    await visit.socket.send_bytes(b"x")
    await visit.stay()


def answers(packet: str) -> Callable[[Visit], Any]:
    """Answers the client's CONNECT with this."""

    async def script(visit: Visit) -> None:
        await visit.open()
        await visit.hear()
        await visit.say(packet)
        await visit.stay()

    return script


def says(packet: str) -> Callable[[Visit], Any]:
    """Lets the client in, and says this."""

    async def script(visit: Visit) -> None:
        await visit.let_in()
        await visit.say(packet)
        await visit.stay()

    return script


async def no_handshake(visit: Visit) -> None:
    await visit.say("2")
    await visit.stay()


async def odd_handshake(visit: Visit) -> None:
    await visit.say("0{}")
    await visit.stay()


async def silent(visit: Visit) -> None:
    await visit.stay()


async def never_admits(visit: Visit) -> None:
    await visit.open()
    await visit.stay()


async def hangs_up_at_join(visit: Visit) -> None:
    await visit.open()
    await visit.hear()


OVERLOADED = {"code": "server.overloaded", "message": "full", "retry_after_ms": 1}


@pytest.mark.parametrize(
    "script",
    [
        vanish,
        closes,
        binary,
        pytest.param(says("what?"), id="garbage"),
        pytest.param(says('42/market,["goodbye",{}]'), id="bad_goodbye"),
        no_handshake,
        odd_handshake,
        silent,
        never_admits,
        hangs_up_at_join,
        pytest.param(answers("44/market,[]"), id="refuses_oddly"),
        pytest.param(answers('44/market,{"message":"no"}'), id="refuses_without_a_code"),
        pytest.param(
            answers(f"44/market,{json.dumps({'message': 'full', 'data': OVERLOADED})}"),
            id="is_overloaded",
        ),
    ],
)
async def test_a_server_in_trouble_is_left_and_tried_again(
    script: Callable[[Visit], Any],
) -> None:
    server = Scripted(script, admitted)
    async with (
        server.running(),
        nothing_left(),
        client_at(server, connect_seconds=0.05, answer_seconds=0.05) as client,
    ):
        await until(lambda: server.visits >= 2)
        await until(lambda: client.state is ClientState.ONLINE)


async def test_what_is_no_websocket_is_said_to_be_none() -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=503)

    app = web.Application()
    app.router.add_get("/socket.io/", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    assert "503" in (await in_vain(Client(url, "x", config=config()))).message
    await in_vain(Client("no url at all", "x", config=config()))
    await runner.cleanup()


def goodbye(namespace: str = "/market", **body: object) -> str:
    return event(namespace, "goodbye", **{"message": "bye", "after_ms": 0, **body})


async def test_who_is_sent_away_for_good_stays_away() -> None:
    started = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.let_in()
        await started.wait()
        await visit.say(goodbye(code="auth.forbidden", reconnect=False), "41/market,")

    server = Scripted(script)
    async with server.running(), nothing_left():
        client = client_at(server)
        await client.start()
        started.set()
        with pytest.raises(ForbiddenError) as caught:
            await anext(client.market.prices("A"))
        assert caught.value.message == "bye"
        await until(lambda: client.state is ClientState.CLOSED)
        assert server.visits == 1
        await client.close()


async def test_a_namespace_that_is_ended_alone_leaves_the_other() -> None:
    async def script(visit: Visit) -> None:
        await visit.let_in()
        await visit.admit("/session")
        head, _, _ = await visit.question()
        await visit.answer(head, {"ok": True, "epoch": "e", "seq": 0})
        await visit.question()
        await visit.say("41/session,")
        await visit.connected("TRADES:A")
        await visit.say(trades(1))
        await visit.stay()

    async with Scripted(script).running() as server, client_at(server) as client:
        session = await client.session.join("s")
        with pytest.raises(FloorcastError) as caught:
            await anext(session.messages())
        assert caught.value.code == "server.internal"
        assert isinstance(await anext(client.market.trades("A")), TradesMessage)


async def test_a_goodbye_may_name_the_time_to_come_back() -> None:
    loop = asyncio.get_running_loop()
    moments: list[float] = []

    async def script(visit: Visit) -> None:
        await visit.let_in()
        moments.append(loop.time())
        await visit.say(goodbye(code="server.draining", reconnect=True, after_ms=80))

    async def again(visit: Visit) -> None:
        moments.append(loop.time())
        await admitted(visit)

    async with Scripted(script, again).running() as server, client_at(server):
        await until(lambda: len(moments) == 2)
        assert moments[1] - moments[0] >= 0.07


async def test_a_hint_is_followed_at_its_moment_without_taking_leave() -> None:
    heard: list[str] = []
    loop = asyncio.get_running_loop()
    moments: list[float] = []

    async def script(visit: Visit) -> None:
        await visit.let_in()
        moments.append(loop.time())
        await visit.say(event("/market", "reconnect_hint", after_ms=30))
        # Only the first counts.
        await visit.say(event("/market", "reconnect_hint", after_ms=0))
        heard.extend([message.data async for message in visit.socket])

    server = Scripted(script, admitted)
    # The moment was the server's choice for this client: no delay of its own comes on top.
    slow = BackoffConfig(least_seconds=60.0, first_seconds=60.0, most_seconds=60.0)
    async with server.running(), client_at(server, backoff=slow) as client:
        await until(lambda: client.stats.reconnects == 1)
        assert loop.time() - moments[0] >= 0.025
        assert heard == []


async def test_a_namespace_that_is_refused_for_now_is_tried_again_later() -> None:
    async def script(visit: Visit) -> None:
        await visit.let_in()
        await visit.hear()
        problem = {"code": "limit.rate", "message": "too fast", "retry_after_ms": 5}
        await visit.say(f"44/session,{json.dumps({'message': 'x', 'data': problem})}")
        await visit.admit("/session")
        head, name, body = await visit.question()
        assert (name, body) == ("join", {"session_id": "s"})
        await visit.answer(head, {"ok": True, "epoch": "e", "seq": 3})
        await visit.stay()

    server = Scripted(script)
    async with server.running(), client_at(server) as client:
        session = await client.session.join("s")
        assert session.joined_at is not None
        assert session.joined_at.seq == 3
        assert server.visits == 1


async def test_a_refusal_of_tomorrow_is_an_error_of_its_area() -> None:
    async def script(visit: Visit) -> None:
        await visit.let_in()
        for code in ("limit.novelty", "unheard.of"):
            head, _, body = await visit.question()
            error = {"code": code, "message": "new", "hint": 1}
            states = {body["topics"][0]: {"status": "ERROR", "error": error}}
            await visit.answer(head, {"ok": True, "topics": states})
        head, _, body = await visit.question()
        await visit.answer(head, {"ok": True, "topics": {body["topics"][0]: {"status": "ERROR"}}})
        await visit.stay()

    async with Scripted(script).running() as server, client_at(server) as client:
        for kind, code in ((LimitExceeded, "limit.novelty"), (FloorcastError, "unheard.of")):
            with pytest.raises(kind) as caught:
                await anext(client.market.prices("A"))
            assert caught.value.code == code
        with pytest.raises(TopicError):
            await anext(client.market.prices("A"))


async def test_a_topic_that_fails_for_now_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client_sdk.connection.worker._RETRY_SECONDS", 0.001)

    async def script(visit: Visit) -> None:
        await visit.let_in()
        head, _, _ = await visit.question()
        error = {"code": "server.internal", "message": "oops"}
        good = {"status": "CONNECTED", "epoch": "e", "seq": 0}
        topics = {"TRADES:A": {"status": "ERROR", "error": error}, "TRADES:B": good}
        await visit.answer(head, {"ok": True, "topics": topics})
        await visit.connected("TRADES:A")
        await visit.say(trades(1))
        await visit.stay()

    async with Scripted(script).running() as server, client_at(server) as client:
        item = await anext(client.market.trades("A", "B"))
        assert isinstance(item, TradesMessage)


@pytest.mark.parametrize("answer", [{"ok": True}, {"ok": True, "topics": []}, 5, {"ok": False}])
async def test_an_answer_that_makes_no_sense_is_an_error_and_not_a_wait(answer: object) -> None:
    async def script(visit: Visit) -> None:
        await visit.let_in()
        while True:
            head, name, _ = await visit.question()
            await visit.answer(head, answer if name == "subscribe" else {"ok": True})

    async with (
        Scripted(script).running() as server,
        client_at(server, answer_seconds=1.0) as client,
    ):
        stream = client.market.prices("A")
        if answer == {"ok": False}:
            # A server that says nothing more is one in trouble: it is asked again.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(stream)
        else:
            with pytest.raises(ProtocolError):
                await anext(stream)


async def test_an_answer_that_does_not_come_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client_sdk.connection.worker._RETRY_SECONDS", 0.001)

    async def script(visit: Visit) -> None:
        await visit.let_in()
        late, _, _ = await visit.question()
        while True:
            # Where this one takes too long as well, it is asked once more.
            await visit.connected("TRADES:A")
            # What comes after all is nothing any more.
            await visit.answer(late, {"ok": False})
            await visit.say("43/market,999[{}]", trades(1))

    async with (
        Scripted(script).running() as server,
        client_at(server, answer_seconds=0.03) as client,
    ):
        assert isinstance(await anext(client.market.trades("A")), TradesMessage)


async def test_messages_that_nobody_can_read_are_counted_and_shown_as_a_gap() -> None:
    async def script(visit: Visit) -> None:
        await visit.let_in()
        await visit.connected("TRADES:A")
        await visit.say(
            "42/elsewhere,[\"x\",{}]",
            event("/market", "novelty", x=1),
            event("/market", "status", x=1),
            event("/market", "error", code="limit.rate", message="x"),
            trades(1),
            trades(1),
            trades(2, data={"trades": "none"}),
            event("/market", "trades", x=1),
            trades(3),
        )  # fmt: skip
        head, name, body = await visit.question()
        assert (name, body["since"]) == ("subscribe", {"TRADES:A": {"epoch": "e", "seq": 1}})
        state = {"status": "CONNECTED", "epoch": "e", "seq": 3, "recovered": False}
        await visit.answer(head, {"ok": True, "topics": {"TRADES:A": state}})
        await visit.say(trades(4))
        await visit.stay()

    async with Scripted(script).running() as server, client_at(server) as client:
        stream = client.market.trades("A")
        items = [await anext(stream) for _ in range(3)]
        assert [each.seq if isinstance(each, TradesMessage) else None for each in items] == [
            1,
            None,
            4,
        ]
        gap = items[1]
        assert isinstance(gap, Gap)
        assert (gap.missed_from, gap.missed_to) == (2, 3)
        assert client.stats.malformed == 2
        assert client.stats.duplicates == 1


async def test_a_session_is_asked_for_and_talked_to_until_the_server_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client_sdk.connection.worker._RETRY_SECONDS", 0.001)

    async def script(visit: Visit) -> None:
        await visit.let_in()
        await visit.admit("/session")
        busy = {"code": "limit.rate", "message": "slowly", "retry_after_ms": 1}
        for answer in (
            {"ok": False, "error": {"code": "server.internal", "message": "oops"}},
            {"ok": True, "epoch": "e", "seq": 0},
            {"ok": False, "error": busy},
            {"ok": True, "id": "mine", "epoch": "e", "seq": 1, "ts": 1},
        ):
            head, _, _ = await visit.question()
            await visit.answer(head, answer)
        await visit.stay()

    async with Scripted(script).running() as server, client_at(server) as client:
        session = await client.session.join("s")
        assert (await session.send({"n": 1}, id="mine")).id == "mine"


async def test_a_namespace_that_was_put_off_is_not_asked_for_on_a_new_connection() -> None:
    async def script(visit: Visit) -> None:
        await visit.let_in()
        await visit.hear()
        problem = {"code": "limit.rate", "message": "no", "retry_after_ms": 60_000}
        await visit.say(f"44/session,{json.dumps({'message': 'x', 'data': problem})}")
        await asyncio.sleep(0.01)

    async def only_market(visit: Visit) -> None:
        await visit.let_in()
        await visit.connected("TRADES:A")
        await visit.say(trades(1))
        assert (await visit.hear()).startswith("41/market")
        await visit.stay()

    async with Scripted(script, only_market).running() as server, client_at(server) as client:
        joining = asyncio.ensure_future(client.session.join("s"))
        await until(lambda: client.stats.reconnects == 1)
        stream = client.market.trades("A")
        assert isinstance(await anext(stream), TradesMessage)
        joining.cancel()
        await asyncio.wait([joining])


async def test_what_one_connection_put_off_is_asked_for_at_once_on_the_next() -> None:
    async def busy(visit: Visit) -> None:
        await visit.let_in()
        head, _, _ = await visit.question()
        problem = {"code": "limit.rate", "message": "no", "retry_after_ms": 60_000}
        await visit.answer(head, {"ok": False, "error": problem})
        await asyncio.sleep(0.01)

    async def idle(visit: Visit) -> None:
        await visit.let_in()
        await visit.connected("TRADES:A")
        await visit.stay()

    async with (
        Scripted(busy, idle).running() as server,
        client_at(server) as client,
        asyncio.timeout(PATIENCE_SECONDS),
        client.market.trades("A"),
    ):
        assert client.stats.reconnects == 1


async def test_session_events_that_nobody_can_read_are_counted() -> None:
    async def script(visit: Visit) -> None:
        await visit.let_in()
        await visit.admit("/session")
        head, _, _ = await visit.question()
        await visit.answer(head, {"ok": True, "epoch": "e", "seq": 0})
        await asyncio.sleep(0.01)
        await visit.say(
            event("/session", "message", x=1),
            event("/session", "novelty", x=1),
            event("/session", "session_closed", session_id="another"),
            event("/session", "user_left", session_id="another", user_id="x",
                  participant_count=1, ts=1),
            event("/session", "session_closed", session_id="s", reason="closed"),
        )  # fmt: skip
        await visit.stay()

    async with Scripted(script).running() as server, client_at(server) as client:
        session = await client.session.join("s")
        with pytest.raises(SessionError):
            await anext(session.messages())
        assert client.stats.malformed == 1


async def test_publishing_to_a_server_that_answers_nonsense_fails() -> None:
    async def script(visit: Visit) -> None:
        await visit.let_in()
        for answer in (
            {"ok": True, "positions": []},
            {"ok": False, "error": {"code": "request.invalid", "message": "no"}},
        ):
            head, _, _ = await visit.question()
            await visit.answer(head, answer)
        await visit.stay()

    async with Scripted(script).running() as server, client_at(server) as client:
        codes = []
        for _ in range(2):
            with pytest.raises(FloorcastError) as caught:
                await client.market.publish("TRADES:A", {})
            codes.append(caught.value.code)
        assert codes == ["client.protocol", "request.invalid"]


async def test_an_error_of_ours_ends_the_client_loudly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, seconds: float) -> None:
        raise ZeroDivisionError

    async with Scripted(closes).running() as server, nothing_left():
        monkeypatch.setattr("client_sdk.connection.backoff.Backoff.lasted", fail)
        client = client_at(server)
        await client.start()
        with pytest.raises(ProtocolError):
            await anext(client.market.prices("A"))
        await client.close()
    assert "the client failed" in caplog.text


async def test_frames_that_wait_do_not_keep_others_from_running() -> None:
    async def script(visit: Visit) -> None:
        await visit.let_in()
        await visit.connected("TRADES:A")
        for seq in range(1, 2001):
            await visit.say(trades(seq))
        await visit.stay()

    async with (
        Scripted(script).running() as server,
        client_at(server, buffer_messages=256) as client,
    ):
        stream = client.market.trades("A")
        seqs = [
            item.seq async for item, _ in _first(stream, 2000) if isinstance(item, TradesMessage)
        ]
        assert seqs == list(range(1, 2001))
        assert client.stats.gaps_seen == 0


async def _first(stream: Any, count: int) -> Any:
    for number in range(count):
        yield await anext(stream), number


def test_errors_say_what_they_are() -> None:
    error = AuthenticationError("the token has expired", code="auth.expired")
    assert str(error) == "the token has expired (auth.expired)"
    assert str(SendTimeout("too late")) == "too late (client.timeout)"
    again = error.again()
    assert again is not error
    assert (again.code, again.message) == (error.code, error.message)
