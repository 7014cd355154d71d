"""How the client opens its HTTP connection: headers, proxies, certificates."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from client_sdk import Client, ConfigError
from tests.kit.clients.sdk import config


@dataclass
class RecordingServer:
    """Answers 404 to each request, and keeps them."""

    url: str = ""
    requests: list[web.BaseRequest] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.requests.append(request)
        return web.Response(status=404)


@contextlib.asynccontextmanager
async def recording() -> AsyncIterator[RecordingServer]:
    server = RecordingServer()
    runner = web.ServerRunner(web.Server(server.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


async def attempt(url: str, **options: Any) -> None:
    """Try to connect; the server is none of Floorcast."""
    with pytest.raises(ConfigError):
        await Client(url, "x", config=config(), **options).start()


async def test_headers_are_sent_with_the_connection() -> None:
    async with recording() as server:
        await attempt(server.url, headers={"X-Team": "desk"})
        assert server.requests[0].headers["X-Team"] == "desk"


async def test_connection_goes_through_the_given_proxy() -> None:
    async with recording() as proxy:
        await attempt("http://server.test:8000", proxy=proxy.url)
        assert proxy.requests[0].headers["Host"] == "server.test:8000"


async def test_connection_goes_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with recording() as proxy, recording() as server:
        monkeypatch.setenv("ws_proxy", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        await attempt(server.url)
        assert (len(server.requests), len(proxy.requests)) == (1, 0)
        await attempt("http://server.test:8000", trust_env=True)
        assert len(proxy.requests) == 1


async def test_ssl_context_is_used() -> None:
    async with recording() as server:
        context = ssl.create_default_context()
        await attempt(server.url.replace("http", "https"), ssl=context)
