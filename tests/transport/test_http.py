"""Tests that malformed HTTP is refused and logged in at most one line."""

import asyncio
import json
import logging
import socket
import struct

import aiohttp
import pytest

from server.core.disconnects import DisconnectReason
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import running

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
