"""The client against servers that are silent, refuse, say goodbye or send garbage."""

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
from tests.kit.clients.sdk import config, no_leftover_tasks, start_error
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.server.scripted import ScriptedConnection, ScriptedServer, event, hang_up


def client_at(server: ScriptedServer, token: Any = "x", **changes: Any) -> Client:
    return Client(server.url, token, config=config(**changes))


async def accept_quietly(connection: ScriptedConnection) -> None:
    """Accept the client and send nothing more."""
    await connection.accept()
    await connection.wait_closed()


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


async def test_client_opts_out_of_recovery() -> None:
    auths: list[dict[str, Any]] = []

    async def script(connection: ScriptedConnection) -> None:
        auths.append(await connection.accept())
        await connection.wait_closed()

    async with ScriptedServer(script).running() as server, client_at(server):
        assert auths == [{"token": "x", "recovery": False}]


async def test_client_answers_pings_and_leaves_a_silent_server() -> None:
    alive, left = asyncio.Event(), asyncio.Event()

    async def script(connection: ScriptedConnection) -> None:
        # A busy machine can miss one of these deadlines; then the client reconnects.
        await connection.send_handshake('0{"sid":"x","pingInterval":80,"pingTimeout":40}')
        await connection.accept_namespace()
        for _ in range(3):
            await asyncio.sleep(0.06)
            await connection.send("2", "6")
            assert await connection.receive() == "3"
        alive.set()
        await connection.wait_closed()
        left.set()

    async with ScriptedServer(script).running() as server, no_leftover_tasks(), client_at(server):
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await alive.wait()
            await left.wait()


async def close_after_accept(connection: ScriptedConnection) -> None:
    await connection.accept()
    await asyncio.sleep(0.01)
    await connection.send("1")
    await connection.wait_closed()


async def send_binary(connection: ScriptedConnection) -> None:
    await connection.accept()
    await connection.socket.send_bytes(b"x")
    await connection.wait_closed()


def reply_to_connect(packet: str) -> Callable[[ScriptedConnection], Any]:
    """A script that replies to CONNECT with this packet."""

    async def script(connection: ScriptedConnection) -> None:
        await connection.send_handshake()
        await connection.receive()
        await connection.send(packet)
        await connection.wait_closed()

    return script


def send_after_accept(packet: str) -> Callable[[ScriptedConnection], Any]:
    """A script that accepts the client and sends this packet."""

    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.send(packet)
        await connection.wait_closed()

    return script


async def no_handshake(connection: ScriptedConnection) -> None:
    await connection.send("2")
    await connection.wait_closed()


async def malformed_handshake(connection: ScriptedConnection) -> None:
    await connection.send("0{}")
    await connection.wait_closed()


async def send_nothing(connection: ScriptedConnection) -> None:
    await connection.wait_closed()


async def never_accept(connection: ScriptedConnection) -> None:
    await connection.send_handshake()
    await connection.wait_closed()


async def hang_up_at_join(connection: ScriptedConnection) -> None:
    await connection.send_handshake()
    await connection.receive()


OVERLOADED = {"code": "server.overloaded", "message": "full", "retry_after_ms": 1}


@pytest.mark.parametrize(
    "script",
    [
        hang_up,
        close_after_accept,
        send_binary,
        pytest.param(send_after_accept("what?"), id="garbage"),
        pytest.param(send_after_accept('42/market,["goodbye",{}]'), id="malformed_goodbye"),
        no_handshake,
        malformed_handshake,
        send_nothing,
        never_accept,
        hang_up_at_join,
        pytest.param(reply_to_connect("44/market,[]"), id="malformed_connect_error"),
        pytest.param(
            reply_to_connect('44/market,{"message":"no"}'), id="connect_error_without_a_code"
        ),
        pytest.param(
            reply_to_connect(f"44/market,{json.dumps({'message': 'full', 'data': OVERLOADED})}"),
            id="overloaded",
        ),
    ],
)
async def test_client_reconnects_to_a_failing_server(
    script: Callable[[ScriptedConnection], Any],
) -> None:
    server = ScriptedServer(script, accept_quietly)
    async with (
        server.running(),
        no_leftover_tasks(),
        client_at(server, connect_seconds=0.05, answer_seconds=0.05) as client,
    ):
        await until(lambda: server.connection_count >= 2)
        await until(lambda: client.state is ClientState.ONLINE)


async def test_http_server_without_websocket_is_unavailable() -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=503)

    app = web.Application()
    app.router.add_get("/socket.io/", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    assert "503" in (await start_error(Client(url, "x", config=config()))).message
    await runner.cleanup()


def goodbye(namespace: str = "/market", **body: object) -> str:
    return event(namespace, "goodbye", **{"message": "bye", "after_ms": 0, **body})


async def test_final_goodbye_ends_the_client() -> None:
    started = asyncio.Event()

    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        await started.wait()
        await connection.send(goodbye(code="auth.forbidden", reconnect=False), "41/market,")

    server = ScriptedServer(script)
    async with server.running(), no_leftover_tasks():
        client = client_at(server)
        await client.start()
        started.set()
        with pytest.raises(ForbiddenError) as caught:
            await anext(client.market.prices("A"))
        assert caught.value.message == "bye"
        await until(lambda: client.state is ClientState.CLOSED)
        assert server.connection_count == 1
        await client.close()


async def test_ending_one_namespace_keeps_the_other() -> None:
    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.accept_namespace("/session")
        head, _, _ = await connection.receive_request()
        await connection.reply(head, {"ok": True, "epoch": "e", "seq": 0})
        await connection.receive_request()
        await connection.send("41/session,")
        await connection.grant_subscription("TRADES:A")
        await connection.send(trades(1))
        await connection.wait_closed()

    async with ScriptedServer(script).running() as server, client_at(server) as client:
        session = await client.session.join("s")
        with pytest.raises(FloorcastError) as caught:
            await anext(session.messages())
        assert caught.value.code == "server.internal"
        assert isinstance(await anext(client.market.trades("A")), TradesMessage)


async def test_goodbye_delay_is_respected() -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        times.append(loop.time())
        await connection.send(goodbye(code="server.draining", reconnect=True, after_ms=80))

    async def again(connection: ScriptedConnection) -> None:
        times.append(loop.time())
        await accept_quietly(connection)

    async with ScriptedServer(script, again).running() as server, client_at(server):
        await until(lambda: len(times) == 2)
        assert times[1] - times[0] >= 0.07


async def test_reconnect_hint_is_followed_without_leaving_namespaces() -> None:
    received: list[str] = []
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        times.append(loop.time())
        await connection.send(event("/market", "reconnect_hint", after_ms=30))
        # Only the first hint counts.
        await connection.send(event("/market", "reconnect_hint", after_ms=0))
        received.extend([message.data async for message in connection.socket])

    server = ScriptedServer(script, accept_quietly)
    # The server chose the moment for this client: the backoff adds no delay.
    slow = BackoffConfig(least_seconds=60.0, first_seconds=60.0, most_seconds=60.0)
    async with server.running(), client_at(server, backoff=slow) as client:
        await until(lambda: client.stats.reconnects == 1)
        assert loop.time() - times[0] >= 0.025
        assert received == []


async def test_namespace_with_a_retryable_refusal_is_joined_later() -> None:
    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.receive()
        error = {"code": "limit.rate", "message": "too fast", "retry_after_ms": 5}
        await connection.send(f"44/session,{json.dumps({'message': 'x', 'data': error})}")
        await connection.accept_namespace("/session")
        head, name, body = await connection.receive_request()
        assert (name, body) == ("join", {"session_id": "s"})
        await connection.reply(head, {"ok": True, "epoch": "e", "seq": 3})
        await connection.wait_closed()

    server = ScriptedServer(script)
    async with server.running(), client_at(server) as client:
        session = await client.session.join("s")
        assert session.join_position is not None
        assert session.join_position.seq == 3
        assert server.connection_count == 1


async def test_unknown_error_code_maps_by_its_area() -> None:
    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        for code in ("limit.novelty", "unheard.of"):
            head, _, body = await connection.receive_request()
            error = {"code": code, "message": "new", "hint": 1}
            states = {body["topics"][0]: {"status": "ERROR", "error": error}}
            await connection.reply(head, {"ok": True, "topics": states})
        head, _, body = await connection.receive_request()
        await connection.reply(
            head, {"ok": True, "topics": {body["topics"][0]: {"status": "ERROR"}}}
        )
        await connection.wait_closed()

    async with ScriptedServer(script).running() as server, client_at(server) as client:
        for kind, code in ((LimitExceeded, "limit.novelty"), (FloorcastError, "unheard.of")):
            with pytest.raises(kind) as caught:
                await anext(client.market.prices("A"))
            assert caught.value.code == code
        with pytest.raises(TopicError):
            await anext(client.market.prices("A"))


async def test_topic_with_a_retryable_error_is_requested_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client_sdk.connection.namespaces._RETRY_SECONDS", 0.001)

    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        head, _, _ = await connection.receive_request()
        error = {"code": "server.internal", "message": "oops"}
        good = {"status": "CONNECTED", "epoch": "e", "seq": 0}
        topics = {"TRADES:A": {"status": "ERROR", "error": error}, "TRADES:B": good}
        await connection.reply(head, {"ok": True, "topics": topics})
        await connection.grant_subscription("TRADES:A")
        await connection.send(trades(1))
        await connection.wait_closed()

    async with ScriptedServer(script).running() as server, client_at(server) as client:
        item = await anext(client.market.trades("A", "B"))
        assert isinstance(item, TradesMessage)


@pytest.mark.parametrize("answer", [{"ok": True}, {"ok": True, "topics": []}, 5, {"ok": False}])
async def test_malformed_reply_raises_an_error(answer: object) -> None:
    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        while True:
            head, name, _ = await connection.receive_request()
            await connection.reply(head, answer if name == "subscribe" else {"ok": True})

    async with (
        ScriptedServer(script).running() as server,
        client_at(server, answer_seconds=1.0) as client,
    ):
        stream = client.market.prices("A")
        if answer == {"ok": False}:
            # An error without a code is an internal one of the server: the request is retried.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(stream)
        else:
            with pytest.raises(ProtocolError):
                await anext(stream)


async def test_request_without_a_reply_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client_sdk.connection.namespaces._RETRY_SECONDS", 0.001)

    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        late, _, _ = await connection.receive_request()
        # The connection is alive, so it stays.
        await connection.send("6")
        while True:
            # If this reply is late too, the client sends the request again.
            await connection.grant_subscription("TRADES:A")
            # A reply after its timeout is ignored.
            await connection.reply(late, {"ok": False})
            await connection.send("43/market,999[{}]", trades(1))

    async with (
        ScriptedServer(script).running() as server,
        client_at(server, answer_seconds=0.03) as client,
    ):
        assert isinstance(await anext(client.market.trades("A")), TradesMessage)


async def test_malformed_messages_are_counted_and_become_a_gap() -> None:
    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.grant_subscription("TRADES:A")
        await connection.send(
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
        head, name, body = await connection.receive_request()
        assert (name, body["since"]) == ("subscribe", {"TRADES:A": {"epoch": "e", "seq": 1}})
        state = {"status": "CONNECTED", "epoch": "e", "seq": 3, "recovered": False}
        await connection.reply(head, {"ok": True, "topics": {"TRADES:A": state}})
        await connection.send(trades(4))
        await connection.wait_closed()

    async with ScriptedServer(script).running() as server, client_at(server) as client:
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


async def test_join_and_send_are_retried_until_they_succeed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client_sdk.connection.namespaces._RETRY_SECONDS", 0.001)

    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.accept_namespace("/session")
        busy = {"code": "limit.rate", "message": "slowly", "retry_after_ms": 1}
        for answer in (
            {"ok": False, "error": {"code": "server.internal", "message": "oops"}},
            {"ok": True, "epoch": "e", "seq": 0},
            {"ok": False, "error": busy},
            {"ok": True, "id": "mine", "epoch": "e", "seq": 1, "ts": 1},
        ):
            head, _, _ = await connection.receive_request()
            await connection.reply(head, answer)
        await connection.wait_closed()

    async with ScriptedServer(script).running() as server, client_at(server) as client:
        session = await client.session.join("s")
        assert (await session.send({"n": 1}, id="mine")).id == "mine"


async def test_postponed_namespace_stays_postponed_after_a_reconnect() -> None:
    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.receive()
        error = {"code": "limit.rate", "message": "no", "retry_after_ms": 60_000}
        await connection.send(f"44/session,{json.dumps({'message': 'x', 'data': error})}")
        await asyncio.sleep(0.01)

    async def only_market(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.grant_subscription("TRADES:A")
        await connection.send(trades(1))
        assert (await connection.receive()).startswith("41/market")
        await connection.wait_closed()

    async with ScriptedServer(script, only_market).running() as server, client_at(server) as client:
        joining = asyncio.ensure_future(client.session.join("s"))
        await until(lambda: client.stats.reconnects == 1)
        stream = client.market.trades("A")
        assert isinstance(await anext(stream), TradesMessage)
        joining.cancel()
        await asyncio.wait([joining])


async def test_rate_limited_request_is_retried_at_once_after_a_reconnect() -> None:
    async def busy(connection: ScriptedConnection) -> None:
        await connection.accept()
        head, _, _ = await connection.receive_request()
        error = {"code": "limit.rate", "message": "no", "retry_after_ms": 60_000}
        await connection.reply(head, {"ok": False, "error": error})
        await asyncio.sleep(0.01)

    async def idle(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.grant_subscription("TRADES:A")
        await connection.wait_closed()

    async with (
        ScriptedServer(busy, idle).running() as server,
        client_at(server) as client,
        asyncio.timeout(MAX_WAIT_SECONDS),
        client.market.trades("A"),
    ):
        assert client.stats.reconnects == 1


async def test_malformed_session_events_are_counted() -> None:
    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.accept_namespace("/session")
        head, _, _ = await connection.receive_request()
        await connection.reply(head, {"ok": True, "epoch": "e", "seq": 0})
        await asyncio.sleep(0.01)
        await connection.send(
            event("/session", "message", x=1),
            event("/session", "novelty", x=1),
            event("/session", "session_closed", session_id="another"),
            event("/session", "user_left", session_id="another", user_id="x",
                  participant_count=1, ts=1),
            event("/session", "session_closed", session_id="s", reason="closed"),
        )  # fmt: skip
        await connection.wait_closed()

    async with ScriptedServer(script).running() as server, client_at(server) as client:
        session = await client.session.join("s")
        with pytest.raises(SessionError):
            await anext(session.messages())
        assert client.stats.malformed == 1


async def test_publish_with_a_malformed_reply_raises() -> None:
    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        for answer in (
            {"ok": True, "positions": []},
            {"ok": False, "error": {"code": "request.invalid", "message": "no"}},
        ):
            head, _, _ = await connection.receive_request()
            await connection.reply(head, answer)
        await connection.wait_closed()

    async with ScriptedServer(script).running() as server, client_at(server) as client:
        codes = []
        for _ in range(2):
            with pytest.raises(FloorcastError) as caught:
                await client.market.publish("TRADES:A", {})
            codes.append(caught.value.code)
        assert codes == ["client.protocol", "request.invalid"]


async def test_internal_error_ends_the_client_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, uptime_seconds: float) -> None:
        raise ZeroDivisionError

    async with ScriptedServer(close_after_accept).running() as server, no_leftover_tasks():
        monkeypatch.setattr("client_sdk.connection.backoff.Backoff.reset_if_stable", fail)
        client = client_at(server)
        await client.start()
        with pytest.raises(ProtocolError):
            await anext(client.market.prices("A"))
        await client.close()
    assert "the client failed" in caplog.text


async def test_reading_buffered_frames_yields_to_other_tasks() -> None:
    async def script(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.grant_subscription("TRADES:A")
        for seq in range(1, 2001):
            await connection.send(trades(seq))
        await connection.wait_closed()

    async with (
        ScriptedServer(script).running() as server,
        client_at(server, buffer_messages=64) as client,
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


def test_errors_have_a_message_and_a_code() -> None:
    error = AuthenticationError("the token has expired", code="auth.expired")
    assert str(error) == "the token has expired (auth.expired)"
    assert str(SendTimeout("too late")) == "too late (client.timeout)"
    again = error.clone()
    assert again is not error
    assert (again.code, again.message) == (error.code, error.message)
