"""Mistakes that no retry can help with fail at once and say what to do."""

import contextlib
import pydoc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from client_sdk import (
    BackoffConfig,
    Client,
    ClientConfig,
    ClientState,
    ConfigError,
    ConnectionLost,
    NotConnected,
    SendTimeout,
    SyncClient,
)
from tests.kit.clients.sdk import client_of, config, no_leftover_tasks
from tests.kit.server.in_process import PRICE, running


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("localhost:8000", "no scheme"),
        ("127.0.0.1:8000", "no scheme"),
        ("", "no scheme"),
        ("ftp://localhost", "must begin with http:// or https://"),
        ("http://", "no host"),
        ("http://localhost:x", "malformed"),
        ("http://localhost:8000/market", "use 'http://localhost:8000'"),
        ("http://localhost:8000/session/", "use 'http://localhost:8000'"),
        ("http://localhost/rt/socket.io/?EIO=4", "must end before its"),
        ("http://localhost/rt/socket.io/", "use 'http://localhost/rt'"),
        (b"http://localhost", "must be a string, not bytes"),
        (None, "must be a string, not NoneType"),
    ],
)
def test_wrong_url_says_what_to_do(url: Any, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SyncClient(url, "x")
    assert hint in caught.value.message
    assert isinstance(caught.value, ValueError)


async def test_server_may_be_mounted_at_a_path() -> None:
    assert Client(" https://example.com/realtime/ ", "x")._url == "https://example.com/realtime"


@pytest.mark.parametrize(("token", "hint"), [(b"x", "decode the bytes"), (5, "not int")])
async def test_wrong_token_says_what_to_do(token: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        Client("http://localhost", token)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"answer_seconds": 0}, "answer_seconds must be more than 0"),
        ({"send_seconds": -1.0}, "send_seconds must be more than 0"),
        ({"start_seconds": float("nan")}, "start_seconds must be more than 0"),
        ({"token_seconds": "5"}, "token_seconds must be a number, not '5'"),
        ({"buffer_messages": 0}, "buffer_messages must be more than 0"),
        ({"buffer_messages": 1.5}, "buffer_messages must be a whole number"),
        ({"batch_bytes": True}, "batch_bytes must be a whole number"),
        ({"backoff": 3}, "backoff must be a BackoffConfig"),
        ({"backoff": BackoffConfig(most_seconds=0)}, "backoff.most_seconds must be more than 0"),
        ({"backoff": BackoffConfig(least_seconds=-1)}, "backoff.least_seconds must be more than 0"),
    ],
)
def test_wrong_setting_is_named(changes: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ClientConfig(**changes)
    assert hint in caught.value.message


async def test_config_must_be_a_client_config() -> None:
    wrong: Any = {"send_seconds": 5}
    with pytest.raises(ConfigError, match="must be a ClientConfig"):
        Client("http://localhost", config=wrong)


@contextlib.asynccontextmanager
async def web_server(status: int) -> AsyncIterator[str]:
    """The URL of a web server that is no Floorcast server."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text="hello")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("status", [200, 404])
async def test_another_web_server_ends_the_start(status: int) -> None:
    async with web_server(status) as url, no_leftover_tasks():
        client = Client(url, "x", config=config())
        with pytest.raises(ConfigError, match=f"no Floorcast server at .* HTTP {status}"):
            await client.start()
        assert client.state is ClientState.CLOSED


async def test_https_to_a_server_without_tls_ends_the_start() -> None:
    async with running() as node:
        client = Client(node.url.replace("http", "https"), "x", config=config())
        with pytest.raises(ConfigError, match="does not speak TLS: use http://"):
            await client.start()


async def test_token_is_stripped_of_white_space() -> None:
    async with running() as node:
        for token in (f" {node.token()}\n", lambda: f"{node.token()}\r\n"):
            async with client_of(node, token) as client:
                assert client.state is ClientState.ONLINE


async def test_client_that_is_not_started_says_so() -> None:
    client = Client("http://localhost:1", "x")
    reading: list[Callable[[], object]] = [
        lambda: client.market.prices("A"),
        lambda: client.market.trades("A"),
        lambda: client.market.stream("PRICE:A"),
        lambda: client.market.on("PRICE:A", print),
        lambda: client.market.book("A"),
    ]
    hint = "not started: use `async with` or call start"
    for read in reading:
        with pytest.raises(NotConnected, match=hint):
            read()
    with pytest.raises(NotConnected, match=hint):
        await client.market.publish("PRICE:A", PRICE)
    with pytest.raises(NotConnected, match=hint):
        await client.session.join("s")


def test_timeouts_and_lost_connections_are_built_in_errors_too() -> None:
    assert issubclass(SendTimeout, TimeoutError)
    assert issubclass(ConnectionLost, ConnectionError)


def test_help_tells_what_a_client_has() -> None:
    text = pydoc.plain(pydoc.render_doc(Client))
    assert "`client.market` reads and publishes market data" in text
    assert "`client.session` joins sessions" in text
