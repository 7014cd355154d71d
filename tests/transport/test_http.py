"""Tests that malformed HTTP is refused and logged in at most one line."""

import asyncio
import json
import logging
import socket
import struct

import aiohttp
import pytest

from server.core.disconnects import DisconnectReason
from server.web.api.errors import ErrorAnswer
from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import RunningServer, running

GOOD = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("upgrade", [False, True], ids=["opening", "upgrading"])
async def test_reset_during_the_handshake_logs_no_traceback(
    upgrade: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running() as node:
        url = "/socket.io/?EIO=4&transport="
        sid = ""
        if upgrade:
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"{node.url}{url}polling") as response,
            ):
                sid = f"&sid={json.loads((await response.text())[1:])['sid']}"
        for _ in range(30):
            client = socket.create_connection((node.host, node.port))
            # Makes `close` send a reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(
                f"GET {url}websocket{sid} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
            )
            client.close()
            for _ in range(5):
                await asyncio.sleep(0)
        for connection in node.server.sockets.connections():
            connection.close(DisconnectReason("the test is over"))
        await node.until_empty()
        assert not any(each.exc_info for each in caplog.records)


@pytest.mark.parametrize("before", [b"", GOOD], ids=["at once", "after a good request"])
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 10_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_malformed_http_logs_at_most_one_line(
    before: bytes, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running() as node:
        reader, writer = await asyncio.open_connection(node.host, node.port)
        writer.write(before + request_bytes)
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            response = await reader.read()
        assert b" 400 " in response or b" 404 " in response
        writer.close()
        assert len(caplog.records) <= 1
        assert not any(each.exc_info for each in caplog.records)
        assert not any(node.residue().values())


async def raw_response(node: RunningServer, request_bytes: bytes) -> bytes:
    """All that the server sends until it closes."""
    reader, writer = await asyncio.open_connection(node.host, node.port)
    writer.write(request_bytes)
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        response = await reader.read()
    writer.close()
    return response


@pytest.mark.parametrize("path", ["/", "/nowhere", "/api/v1/nodes", "/api/v1/publish"])
@pytest.mark.parametrize(
    "request_text",
    [
        "\x16\x03\x01\x02",
        "GET {path}",
        "GET {path} HTTP/9.9\r\nHost: x",
        "G@T {path} HTTP/1.1\r\nHost: x",
        "GET {path} HTTP/1.1\r\nHost: x\r\nno colon",
        "GET {path} HTTP/1.1\r\nHost: x\r\nX: \x00",
        "GET {path} HTTP/1.1\r\nHost: x\r\n folded: x",
        "GET {path} HTTP/1.1\r\nHost: x\r\nContent-Length: -1",
        "GET {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2",
        "GET {path} HTTP/1.1\r\nHost: x\r\nX: {long}",
        "GET {path}{long} HTTP/1.1\r\nHost: x",
        "PATCH {path} HTTP/1.1\r\nHost: x\r\nConnection: close",
        "BREW {path} HTTP/1.1\r\nHost: x\r\nConnection: close",
        "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz",
        "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: rot13",
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Content-Type: text/\xff\r\nContent-Length: 2\r\n\r\n{{}}",
    ],
)
async def test_wrong_http_is_answered_in_the_shape_of_errors(path: str, request_text: str) -> None:
    text = request_text.format(path=path, long="x" * 10_000)
    async with running() as node:
        response = await raw_response(node, text.encode("latin-1") + b"\r\n\r\n")
    head, _, body = response.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    assert 400 <= status < 500, head
    error = ErrorAnswer.model_validate_json(body).error
    assert error.code
    assert error.message


HEAD = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
POLLING = "/socket.io/?EIO=4&transport=polling"


@pytest.mark.parametrize("path", [POLLING, f"{POLLING}&sid=x", "/health/live", "/nowhere"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_body_that_nobody_reads_logs_no_traceback(
    path: str, method: str, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    body = b"\x1f\x8b\x08\x00rubbish"
    async with running() as node:
        head = f"{method} {path} {HEAD}Content-Encoding: {encoding}\r\n"
        length = f"Content-Length: {len(body)}\r\n\r\n"
        assert (await raw_response(node, f"{head}{length}".encode() + body)).startswith(b"HTTP/1.")
        chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n"
        for end in (b"\r\n0\r\n\r\n", b"\r\nzz\r\n"):
            response = await raw_response(node, chunked.encode() + body + end)
            assert response.startswith(b"HTTP/1.")
        for connection in node.server.sockets.connections():
            connection.close(DisconnectReason("the test is over"))
        await node.until_empty()
    assert not any(each.exc_info for each in caplog.records)
    assert len(caplog.records) <= 3


async def test_upgrade_request_with_a_body_is_refused() -> None:
    async with running() as node:
        for body in ("Content-Length: 4\r\n\r\n\x81\x80", "Transfer-Encoding: chunked\r\n\r\n"):
            with pytest.raises(ConnectionError, match="400"):
                await RawClient.open(node.port, headers=body)
        assert not any(node.residue().values())


@pytest.mark.parametrize(
    "request_bytes",
    [
        f"GET {POLLING} {HEAD}\r\n".encode(),
        f"GET /socket.io/ {HEAD}\r\n".encode(),
        f"GET /health/live {HEAD}\r\n".encode(),
        f"GET /nowhere {HEAD}\r\n".encode(),
        b"garbage\r\n\r\n",
    ],
)
async def test_responses_name_no_versions(request_bytes: bytes) -> None:
    async with running() as node:
        response = await raw_response(node, request_bytes)
        head = response.partition(b"\r\n\r\n")[0].lower()
        assert b"server: floorcast" in head
        assert b"aiohttp" not in head
        assert b"python" not in head
        if not request_bytes.startswith(b"garbage"):
            assert b"x-content-type-options: nosniff" in head
            assert b"cache-control: no-store" in head
        for connection in node.server.sockets.connections():
            connection.close(DisconnectReason("the test is over"))


@pytest.mark.parametrize("polls", [False, True], ids=["websocket", "polling"])
async def test_packet_before_the_first_connect_is_short(polls: bool) -> None:
    async with running() as node, aiohttp.ClientSession() as http:
        connect = f'40/market,{{"token":"{"x" * 17_000}"}}'
        if polls:
            async with http.get(f"{node.url}{POLLING}") as response:
                sid = json.loads((await response.text())[1:])["sid"]
            url = f"{node.url}{POLLING}&sid={sid}"
            async with http.post(url, data=connect) as response:
                assert response.status == 400
        else:
            client = await RawClient.open(node.port)
            client.send(connect)
            assert b"\x88\x02\x03\xf1" in await client.until_closed()
            joined = await RawClient.connect(node.port, node.token())
            assert not (await joined.call("subscribe", {"topics": ["x" * 100_000]}))["ok"]
            joined.cut()
        await node.until_empty()
