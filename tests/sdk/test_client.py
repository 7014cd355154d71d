"""A client against a real server: connecting, tokens, reconnecting, closing."""

import asyncio
import logging
from typing import Any

import pytest

from client_sdk import (
    AuthenticationError,
    BookStatus,
    Client,
    ClientClosed,
    ClientState,
    ConfigError,
    ConnectionLost,
    FloorcastError,
    TokenUnavailable,
    UserJoined,
    UserLeft,
)
from client_sdk.connection.tokens import TokenSource
from client_sdk.contract import Scope
from server.sockets.clients import JoinedClient
from tests.kit.clients.sdk import (
    abort_connections,
    client_of,
    client_tasks,
    config,
    no_leftover_tasks,
    start_error,
)
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, running


async def test_documented_example_runs() -> None:
    async with running() as node, no_leftover_tasks():
        get_token = node.token
        async with Client(node.url, token=get_token) as client:
            received = []
            stream = client.market.prices("BTCUSDT", "ETHUSDT")
            await client.market.publish("PRICE:BTCUSDT", {**PRICE, "last": "5"})
            await client.market.publish("PRICE:ETHUSDT", {**PRICE, "last": "6"})
            async for tick in stream:
                received.append((tick.symbol, tick.data.last))
                if len(received) == 2:
                    break
            assert sorted(received) == [("BTCUSDT", "5"), ("ETHUSDT", "6")]
        await node.until_empty()


async def test_state_callback_gets_each_change() -> None:
    async with running() as node:
        client = client_of(node)
        seen: list[ClientState] = []
        ignored: list[ClientState] = []
        client.on_state(seen.append)
        client.on_state(ignored.append)()
        states = [client.state]
        async with client:
            states.append(client.state)
            abort_connections(node)
            await until(lambda: client.stats.reconnects == 1)
        assert states == [ClientState.IDLE, ClientState.ONLINE]
        assert seen == [
            ClientState.CONNECTING,
            ClientState.ONLINE,
            ClientState.OFFLINE,
            ClientState.CONNECTING,
            ClientState.ONLINE,
            ClientState.CLOSED,
        ]
        assert ignored == []


async def test_state_callback_gets_the_reason() -> None:
    async with running() as node:
        client = client_of(node)
        seen: list[tuple[ClientState, FloorcastError | None]] = []
        client.on_state(lambda state, reason: seen.append((state, reason)))
        async with client:
            abort_connections(node)
            await until(lambda: client.state is ClientState.OFFLINE)
            assert isinstance(client.error, ConnectionLost)
            await until(lambda: client.stats.reconnects == 1)
            await until(lambda: client.error is None)
    reasons = {state: reason for state, reason in seen if reason is not None}
    assert list(reasons) == [ClientState.OFFLINE]
    assert reasons[ClientState.OFFLINE].code == "client.connection_lost"


async def test_wait_closed_raises_what_ended_the_client() -> None:
    async with running() as node:
        async with client_of(node) as client:
            waiting = asyncio.create_task(client.wait_closed())
        await waiting
        assert client.error is None
        client = client_of(node, node.token(ttl_seconds=60))
        await client.start()
        waiting = asyncio.create_task(client.wait_closed())
        node.pass_time(120)
        with pytest.raises(AuthenticationError):
            await waiting
        assert isinstance(client.error, AuthenticationError)
        await client.close()


async def test_log_says_why_the_client_is_offline(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "client_sdk")
    async with running() as node, client_of(node) as client:
        abort_connections(node)
        await until(lambda: client.stats.reconnects == 1)
    offline, online = (each for each in caplog.records if "line" in each.message)
    assert offline.levelname == "WARNING"
    assert "the connection was lost (client.connection_lost)" in offline.message
    assert "online again after 1 attempts" in online.message


async def test_failing_state_callback_does_not_end_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(state: ClientState) -> None:
        raise RuntimeError("raised by a test")

    async with running() as node:
        client = client_of(node)
        client.on_state(fail)
        async with client:
            assert client.state is ClientState.ONLINE
    assert "a state callback failed" in caplog.text


@pytest.mark.parametrize("kind", ["string", "plain", "async", "gives a coroutine"])
async def test_token_source_is_a_string_or_any_function(kind: str) -> None:
    async with running() as node:

        async def fetch() -> str:
            await asyncio.sleep(0)
            return node.token()

        sources: dict[str, TokenSource] = {
            "string": node.token(),
            "plain": node.token,
            "async": fetch,
            "gives a coroutine": lambda: fetch(),
        }
        async with client_of(node, sources[kind]) as client:
            assert client.state is ClientState.ONLINE


async def test_token_function_is_called_for_each_connection() -> None:
    async with running() as node:
        tokens = []

        def fetch_token() -> str:
            tokens.append(node.token())
            return tokens[-1]

        async with client_of(node, fetch_token) as client:
            assert len(tokens) == 1
            abort_connections(node)
            await until(lambda: client.stats.reconnects == 1)
            assert len(tokens) == 2


async def test_token_function_that_failed_is_called_again() -> None:
    async with running() as node:
        asked = []

        def fetch_token() -> str:
            asked.append(1)
            if len(asked) < 3:
                raise OSError("the token service is down")
            return node.token()

        async with client_of(node, fetch_token) as client:
            assert client.state is ClientState.ONLINE
        assert len(asked) == 3


async def test_failed_token_for_one_namespace_does_not_affect_the_other() -> None:
    async with running() as node, no_leftover_tasks():
        asked: list[int] = []

        def token() -> str:
            asked.append(len(asked))
            if len(asked) == 2:
                raise OSError("not now")
            return node.token()

        async with client_of(node, token) as client, client.session.join("s"):
            assert (len(asked), client.stats.reconnects) == (3, 0)


async def test_hanging_token_function_times_out() -> None:
    async with running() as node, no_leftover_tasks():

        async def hang() -> str:
            await asyncio.Event().wait()
            raise AssertionError

        client = client_of(node, hang, token_seconds=0.01)
        assert isinstance((await start_error(client)).__cause__, TokenUnavailable)
        assert client.state is ClientState.CLOSED


@pytest.mark.parametrize("returned", [5, None, b"x"])
async def test_token_function_must_return_a_string(returned: Any) -> None:
    async with running() as node, no_leftover_tasks():
        with pytest.raises(ConfigError, match="must return a string, not"):
            await client_of(node, lambda: returned).start()


@pytest.mark.parametrize(
    ("token", "code"), [("x", "auth.invalid"), (None, "auth.missing"), ("", "auth.missing")]
)
async def test_wrong_string_token_ends_the_client(token: str | None, code: str) -> None:
    async with running() as node, no_leftover_tasks():
        client = Client(node.url, token, config=config())
        with pytest.raises(AuthenticationError) as caught:
            await client.start()
        assert caught.value.code == code
        assert client.state is ClientState.CLOSED
        with pytest.raises(AuthenticationError):
            client.market.prices("A")
        with pytest.raises(AuthenticationError):
            await client.market.publish("PRICE:A", PRICE)
        with pytest.raises(AuthenticationError):
            await client.session.join("a")
        await node.until_empty()


async def test_function_that_keeps_returning_wrong_tokens_ends_the_client() -> None:
    async with running() as node:
        tokens = []

        def fetch_token() -> str:
            tokens.append(node.token(audience="another"))
            return tokens[-1]

        with pytest.raises(AuthenticationError) as caught:
            await client_of(node, fetch_token).start()
        assert caught.value.code == "auth.invalid"
        assert len(tokens) == 3


async def test_expired_token_is_replaced_by_a_fresh_one() -> None:
    async with running() as node:
        expired = node.token(ttl_seconds=1)
        node.pass_time(100)
        tokens: list[str] = []

        def fetch_token() -> str:
            tokens.append(node.token() if tokens else expired)
            return tokens[-1]

        async with client_of(node, fetch_token) as client:
            assert client.state is ClientState.ONLINE
        assert len(tokens) == 2


async def test_expired_string_token_ends_the_client_and_its_streams() -> None:
    async with (
        running() as node,
        no_leftover_tasks(),
        client_of(node, node.token(ttl_seconds=60)) as client,
    ):
        stream = client.market.prices("A")
        await stream.ready()
        node.pass_time(70)
        with pytest.raises(AuthenticationError) as caught:
            await anext(stream)
        assert caught.value.code == "auth.expired"
        assert client.state is ClientState.CLOSED


async def test_token_is_renewed_without_a_reconnect() -> None:
    async with running() as node:
        tokens: list[str] = []

        async def fetch_token() -> str:
            tokens.append(node.token(ttl_seconds=60))
            return tokens[-1]

        def fresh(joined: JoinedClient) -> bool:
            return joined.principal.expires_at > node.clock.time() + 50

        async with client_of(node, fetch_token) as client, client.session.join("s") as session:
            for _ in range(3):
                node.pass_time(40)
                await until(lambda: all(map(fresh, node.server.clients.context.clients())))
            await session.send({"still": "here"})
            assert client.stats.reconnects == 0


async def test_failed_renewal_leads_to_a_reconnect_with_a_fresh_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as node:
        asked, is_down = 0, False

        def fetch_token() -> str:
            nonlocal asked
            asked += 1
            if is_down:
                raise OSError("the token service is down")
            return node.token(ttl_seconds=60)

        async with client_of(node, fetch_token) as client:
            is_down = True
            node.pass_time(40)
            await until(lambda: asked >= 2)
            node.pass_time(40)
            await until(lambda: client.state is ClientState.OFFLINE)
            is_down = False
            await until(lambda: client.stats.reconnects == 1)
    assert "token renewal failed" in caplog.text


async def test_start_without_a_server_times_out() -> None:
    async with no_leftover_tasks():
        client = Client("http://127.0.0.1:9", "x", config=config())
        assert (await start_error(client)).code == "client.unreachable"
        assert client.state is ClientState.CLOSED


async def test_start_waits_for_a_late_server() -> None:
    async with running() as node:
        port = node.port
    client = Client(f"http://127.0.0.1:{port}", node.token(), config=config())
    starting = asyncio.create_task(client.start())
    await until(lambda: client.state is ClientState.OFFLINE)
    async with running({"server.port": port}):
        await starting
        assert client.state is ClientState.ONLINE
        await client.close()


async def test_client_starts_once_and_closes_repeatedly() -> None:
    async with running() as node, no_leftover_tasks():
        client = client_of(node)
        async with client:
            with pytest.raises(ClientClosed):
                await client.start()
        await client.close()
        assert client.state is ClientState.CLOSED
        with pytest.raises(ClientClosed):
            client.market.prices("A")


@pytest.mark.parametrize("turns", range(1, 9))
async def test_cancelled_close_leaves_nothing_behind(turns: int) -> None:
    async with running() as node, no_leftover_tasks():
        client = client_of(node)
        await client.start()
        client.market.on("TRADES:A", lambda item: None)
        (await client.session.join("s")).on_message(lambda item: None)
        closing = asyncio.ensure_future(client.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert client.state is ClientState.CLOSED
        await until(lambda: not client_tasks())
        await node.until_empty()


async def test_close_ends_iterators_and_raises_in_pending_calls() -> None:
    async with running() as node, no_leftover_tasks():
        client = client_of(node)
        await client.start()
        stream = client.market.prices("A")
        session = await client.session.join("s")
        messages = session.messages()
        events = session.events()
        book = client.market.book("A")
        assert (await anext(book)).status is BookStatus.SYNCING
        readers = [
            asyncio.create_task(anext(each, None)) for each in (stream, messages, events, book)
        ]
        await asyncio.sleep(0)
        client.market.on("TRADES:A", lambda item: None)
        await client.close()
        assert await asyncio.gather(*readers) == [None] * 4
        with pytest.raises(ClientClosed):
            await session.send({})
        await node.until_empty()


async def test_close_leaves_sessions_at_once() -> None:
    async with (
        running() as node,
        client_of(node) as watcher,
        watcher.session.join("s") as session,
    ):
        events = session.events()
        async with client_of(node, node.token("bob")) as client:
            await client.session.join("s")
        assert isinstance(await anext(events), UserJoined)
        assert isinstance(await anext(events), UserLeft)


async def test_disconnect_is_not_a_leave() -> None:
    async with (
        running() as node,
        client_of(node) as watcher,
        watcher.session.join("s") as session,
    ):
        events = session.events()
        async with client_of(node, node.token("bob")) as client:
            bob_session = await client.session.join("s")
            assert isinstance(await anext(events), UserJoined)
            abort_connections(node)
            for each in (bob_session, session):
                await each.send({"back": True})
            assert client.stats.reconnects == watcher.stats.reconnects == 1
        assert isinstance(await anext(events), UserLeft)


async def test_refused_namespace_does_not_affect_the_other() -> None:
    async with (
        running({"auth.market_optional": True}) as node,
        no_leftover_tasks(),
        Client(node.url, config=config()) as client,
    ):
        with pytest.raises(AuthenticationError) as caught:
            await client.session.join("s")
        assert caught.value.code == "auth.missing"
        assert client.state is ClientState.ONLINE
        stream = client.market.prices("A")
        await stream.ready()
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        assert (await anext(stream)).data.last == PRICE["last"]


async def test_message_age_uses_the_servers_clock() -> None:
    async with running() as node, client_of(node) as client:
        stream = client.market.prices("A")
        await stream.ready()
        # The test server's clock shows another year.
        await client.market.publish("PRICE:A", PRICE)
        assert 0 <= (await anext(stream)).age < 5
        stats = client.stats
        assert abs(stats.clock_offset_ms) > 1e9
        assert stats.received == stats.latency.count == 1
        assert stats.latency.max_ms < 5000


async def test_client_tasks_have_names() -> None:
    async with running() as node, client_of(node) as client:
        client.market.on("TRADES:A", lambda item: None)
        await client.session.join("s")
        assert client_tasks() == {
            "floorcast-supervisor",
            "floorcast-read",
            "floorcast-subscriptions",
            "floorcast-sessions",
            "floorcast-callback",
        }


async def test_token_with_one_scope_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running() as node:
        token = node.token(scopes=[Scope.SESSION_JOIN])
        async with client_of(node, token) as client, client.session.join("s") as session:
            assert (await session.send({"a": 1})).position.seq == 1
            assert client.state is ClientState.ONLINE
