"""Tests which protocol an accepted connection gets, and what becomes of one that gets none."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.core.counters import Counters
from server.tasks import TaskOwner
from server.transport.handshake import HandshakeProtocols, HandshakeRequest
from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.server.in_process import running

OPENING = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
HANDSHAKE = OPENING + b"\r\n"


class Http(asyncio.Protocol):
    """Records what it is given."""

    def __init__(self) -> None:
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data


class SlowServer:
    """Leaves each handshake to aiohttp after the gate opens; fails if `failure` is set."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.failure: Exception | None = None
        self.asked: list[HandshakeRequest] = []
        self.early = b""
        self.sock: Any = None
        self.http = Http()
        self.protocols = HandshakeProtocols(
            self, lambda: self.http, TaskOwner(Counters()), timeout_seconds=MAX_WAIT_SECONDS
        )

    async def open_websocket(
        self, request: HandshakeRequest, transport: asyncio.Transport, early: bytes
    ) -> bool:
        self.asked.append(request)
        self.early = early
        self.sock = transport.get_extra_info("socket")
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return False


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[
    tuple[SlowServer, asyncio.StreamReader, asyncio.StreamWriter]
]:
    """A slow server, and a connection to it."""
    server = SlowServer()
    sock = socket.create_server(("127.0.0.1", 0))
    listener = await server.protocols.listen(sock, backlog=1, max_unsent_bytes=32 * 1024)
    port = sock.getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield server, reader, writer
    finally:
        writer.close()
        listener.close()
        server.protocols.close()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        return await reader.read()


async def turns(count: int = 5) -> None:
    """Let the event loop run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_bytes_that_come_while_the_server_decides_are_kept_in_order() -> None:
    async with connected() as (server, _, writer):
        writer.write(HANDSHAKE + b"one")
        await until(lambda: server.asked)
        writer.write(b"two")
        await turns()
        assert server.http.received == b""
        server.gate.set()
        await until(lambda: server.http.received == HANDSHAKE + b"onetwo")
        assert server.early == b"one"
        assert not server.protocols.undecided


async def test_kernel_holds_little_unsent_of_an_accepted_connection() -> None:
    async with connected() as (server, _, writer):
        writer.write(HANDSHAKE)
        await until(lambda: server.asked)
        option = server.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        assert option == 32 * 1024


async def test_client_that_leaves_while_the_server_decides_is_forgotten() -> None:
    async with connected() as (server, _, writer):
        writer.write(HANDSHAKE)
        await until(lambda: server.asked)
        server.protocols.close()
        await until(lambda: not server.protocols.undecided)
        server.gate.set()
        await turns()
        assert server.http.received == b""


async def test_connection_ends_if_the_server_fails_to_decide(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    async with connected() as (server, reader, writer):
        server.failure = RuntimeError("a bug")
        server.gate.set()
        writer.write(HANDSHAKE)
        with contextlib.suppress(ConnectionResetError):
            assert await read_to_end(reader) == b""
        await until(lambda: not server.protocols.undecided)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        HANDSHAKE[:40],
        HANDSHAKE.replace(b"Host: x\r\n", b""),
        HANDSHAKE.replace(b"GET", b"PUT"),
        HANDSHAKE.replace(b"/socket.io/", b"/SOCKET.IO/"),
        HANDSHAKE.replace(b"Connection: Upgrade", b"Connection: close"),
        OPENING + b"no colon\r\n\r\n",
        OPENING + b"X: " + b"x" * 10_000 + b"\r\n\r\n",
        OPENING + b"Expect: 100-continue\r\n\r\n",
        OPENING + b"Content-Length: 1\r\n\r\nx",
        OPENING + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_plain_handshake_is_left_to_aiohttp(request_bytes: bytes) -> None:
    async with connected() as (server, _, writer):
        writer.write(request_bytes)
        await until(lambda: server.http.received == request_bytes)
        assert not server.asked
        assert not server.protocols.undecided


async def test_handshake_in_pieces_opens_a_connection() -> None:
    async with running() as node:
        reader, writer = await asyncio.open_connection(node.host, node.port)
        for piece in (HANDSHAKE[:30], HANDSHAKE[30:90], HANDSHAKE[90:]):
            writer.write(piece)
            await turns()
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in await reader.readuntil(b"\r\n\r\n")
        client = RawClient(reader, writer)
        assert (await client.text()).startswith("0{")
        await client.join(node.token())
        client.cut()
        await node.until_empty()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"EIO=4", b"EIO=3"),
        (b"transport=websocket", b"transport=x"),
        (b"transport=websocket", b"transport=websocket&sid=x"),
        (b"Version: 13", b"Version: 12"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        (b"Host: x", b"Host: x\r\nOrigin: https://elsewhere.example"),
    ],
)
async def test_refused_handshake_gets_its_reason_on_http(old: bytes, new: bytes) -> None:
    async with running() as node:
        reader, writer = await asyncio.open_connection(node.host, node.port)
        writer.write(HANDSHAKE.replace(old, new))
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            response = await reader.readuntil(b"}")
        writer.close()
        assert response[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 403"), response
        assert b'"message"' in response
        assert not any(node.residue().values())


async def test_silent_connection_is_closed_in_time() -> None:
    async with running({"limits.head_timeout_seconds": 0.05}) as node:
        reader, writer = await asyncio.open_connection(node.host, node.port)
        with contextlib.suppress(ConnectionResetError):
            assert await read_to_end(reader) == b""
        writer.close()


async def test_silent_connection_is_closed_with_the_server() -> None:
    async with running() as node:
        reader, writer = await asyncio.open_connection(node.host, node.port)
        await turns()
    with contextlib.suppress(ConnectionResetError):
        assert await read_to_end(reader) == b""
    writer.close()
