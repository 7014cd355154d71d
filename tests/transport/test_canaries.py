"""Fails if a dependency changes an internal that the transport uses."""

import asyncio
import importlib.metadata
import inspect
from typing import Any

import aiohttp
import aiohttp.test_utils
import engineio
import pytest
import socketio
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

from server.transport.engine import Engine
from server.transport.takeover import TakenOverResponse
from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import running


def test_installed_releases_are_the_verified_ones() -> None:
    pinned = {"python-socketio": "5.18.1", "python-engineio": "4.15.1", "aiohttp": "3.14.5"}
    assert {name: importlib.metadata.version(name) for name in pinned} == pinned


def test_socketio_gets_its_engine_class_from_a_method() -> None:
    assert socketio.AsyncServer()._engineio_server_class() is engineio.AsyncServer
    source = inspect.getsource(socketio.AsyncServer.__mro__[1].__init__)
    assert "self.eio = self._engineio_server_class()(**engineio_options)" in source


async def test_socketio_server_uses_our_engine() -> None:
    async with running() as node:
        sio = node.server.sockets
        assert isinstance(sio, socketio.AsyncServer)
        assert isinstance(sio.eio, Engine)
        assert isinstance(sio.eio, engineio.AsyncServer)
        assert set(sio.namespace_handlers) == {"/market", "/session"}
        assert sio.handlers == {}
        assert sio.namespaces == ["/market", "/session"]
        assert sio.always_connect is False


async def test_engineio_routes_all_methods_to_handle_request() -> None:
    engine = socketio.AsyncServer(async_mode="aiohttp").eio
    app = web.Application()
    engine.attach(app, "/socket.io/")
    routes = {(route.method, route.handler) for route in app.router.routes()}
    assert {("GET", engine.handle_request), ("POST", engine.handle_request)} <= routes
    assert ("OPTIONS", engine.handle_request) in routes


def test_connection_ids_are_random_and_unique() -> None:
    engine = socketio.AsyncServer(async_mode="aiohttp").eio
    ids = {engine.generate_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(each) == 20 for each in ids)


def test_connection_refused_error_carries_message_and_data() -> None:
    refused = socketio.exceptions.ConnectionRefusedError("why", {"code": "x"})
    assert refused.error_args == {"message": "why", "data": {"code": "x"}}


def test_aiohttp_handler_has_the_internals_that_takeover_uses() -> None:
    assert "_message_tail" in RequestHandler.__slots__
    source = inspect.getsource(RequestHandler.connection_lost)
    assert "self._manager.connection_lost(self, exc)" in source
    assert "self.force_close()" in source
    assert "if self.transport is not None:" in inspect.getsource(RequestHandler.force_close)


async def test_aiohttp_parser_finds_the_upgrade_and_what_follows_it() -> None:
    loop = asyncio.get_running_loop()
    parser: Any = HttpRequestParser(BaseProtocol(loop), loop, 1024)
    head = b"GET /x?a=b HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    [(message, payload)], is_upgrade, rest = parser.feed_data(head + b"rest")
    assert (message.url.query["a"], message.headers["host"]) == ("b", "x")
    assert payload is EMPTY_PAYLOAD
    assert is_upgrade
    assert rest == b"rest"


async def test_taken_over_connection_leaves_no_aiohttp_task() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        before = asyncio.all_tasks()
        clients = [await RawClient.connect(node.port, node.token()) for _ in range(5)]
        handlers = [
            task
            for task in asyncio.all_tasks() - before
            if "RequestHandler" in repr(task.get_coro()) or "_handle_request" in repr(task)
        ]
        assert handlers == []
        for each in (client, *clients):
            each.cut()
        await node.until_empty()


async def test_placeholder_response_sends_nothing() -> None:
    response = TakenOverResponse()
    request = aiohttp.test_utils.make_mocked_request("GET", "/")
    assert await response.prepare(request) is None
    await response.write_eof()
    assert response.status == 101
    assert response.keep_alive is False


async def test_slow_request_head_times_out(caplog: pytest.LogCaptureFixture) -> None:
    async with running({"limits.head_timeout_seconds": 0.05}) as node:
        reader, writer = await asyncio.open_connection(node.host, node.port)
        writer.write(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            assert await reader.read() == b""
        writer.close()
        assert caplog.records == []


async def test_takeover_keeps_bytes_behind_the_handshake() -> None:
    async with running() as node:
        reader, writer = await asyncio.open_connection(node.host, node.port)
        client = RawClient(reader, writer)
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        client.send("40/market,{}")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, "the example in RFC 6455, 1.3"
        assert (await client.text()).startswith("0{")
        assert "auth.missing" in await client.text()
        client.cut()
        await node.until_empty()


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "h2c"},
        {"Connection": "keep-alive"},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": "!" * 24},
        {"Sec-WebSocket-Key": ""},
    ],
)
async def test_bad_handshake_is_refused(headers: dict[str, str]) -> None:
    good = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with running() as node, aiohttp.ClientSession() as http:
        url = f"{node.url}/socket.io/?EIO=4&transport=websocket"
        async with http.get(url, headers={**good, **headers}) as response:
            assert response.status == 400
        assert not any(node.residue().values())
