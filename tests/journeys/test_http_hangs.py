"""A client of the HTTP API that reads nothing holds neither memory nor anybody else."""

import asyncio
import socket

import aiohttp
import pytest

from client_sdk.contract import Scope
from server.serving import open_listener
from server.settings import Settings
from tests.kit.patience import until
from tests.kit.server.in_process import running


def open_small_listener(settings: Settings) -> socket.socket:
    """A listener whose connections hold little in the kernel."""
    listener = open_listener(settings)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    return listener


async def test_client_that_reads_nothing_is_cut_off_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.kit.server.in_process.open_listener", open_small_listener)
    async with running({"limits.head_timeout_seconds": 0.3}) as node:
        token = node.token("ops", scopes=tuple(Scope))
        order = {"topic": "ORDER_UPDATES", "user": "ops", "data": {"note": "x" * 900}}
        api = f"{node.url}/api/v1"
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            for _ in range(5):
                async with http.post(f"{api}/publish", json={"messages": [order] * 100}) as sent:
                    assert sent.status == 200
            hanging = await asyncio.to_thread(
                ask_and_read_nothing, node.port, "/api/v1/topics/ORDER_UPDATES/history", token
            )
            limits = node.server.api.limits
            await until(lambda: limits.open_count == 1)
            async with http.get(f"{api}/nodes") as response:
                assert response.status == 200
            assert limits.open_count == 1, "its answer waits in this process"
            await until(lambda: not limits.open_count)
            hanging.close()


def ask_and_read_nothing(port: int, path: str, token: str) -> socket.socket:
    """Send a request, and leave its answer unread."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(
        f"GET {path}?limit=1000 HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    return client
