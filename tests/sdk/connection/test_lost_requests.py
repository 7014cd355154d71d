"""Requests that cannot be sent or are not answered, and connections that lead nowhere."""

import asyncio
import gc
from typing import Any

import pytest

from client_sdk import Client, ConnectionLost
from tests.kit.clients.sdk import client_of, config
from tests.kit.network.tcp_proxy import Proxy
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.server.in_process import running
from tests.kit.server.scripted import ScriptedConnection, ScriptedServer


async def test_request_on_a_dead_connection_raises_only_in_its_caller() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    await send_on_a_dead_connection()
    # asyncio reports an error that was never retrieved when its future is collected.
    gc.collect()
    assert reports == []


async def send_on_a_dead_connection() -> None:
    async with running() as node, client_of(node) as client:
        connection = client._supervisor._connection
        assert connection is not None
        # Dead already, but the read task has not noticed yet.
        connection._socket._writer.transport.abort()
        with pytest.raises(ConnectionLost):
            await connection.request("/market", "subscriptions", "{}", str)


async def test_unanswered_request_ends_a_silent_connection() -> None:
    async def swallow(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.receive_request()
        await connection.wait_closed()

    async def answer(connection: ScriptedConnection) -> None:
        await connection.accept()
        head, event, _ = await connection.receive_request()
        assert event == "publish"
        await connection.reply(head, {"ok": True, "positions": [{"epoch": "e", "seq": 1}]})
        await connection.wait_closed()

    async with ScriptedServer(swallow, answer).running() as server:
        settings = config(answer_seconds=0.05, send_seconds=MAX_WAIT_SECONDS)
        async with Client(server.url, "x", config=settings) as client:
            position = await client.market.publish("USER_DATA", {})
            assert (position.seq, server.connection_count) == (1, 2)
            assert client.stats.reconnects == 1


async def test_unanswered_request_leaves_a_connection_that_receives() -> None:
    async def talk(connection: ScriptedConnection) -> None:
        await connection.accept()
        await connection.receive_request()
        for _ in range(20):
            await connection.send("6")
            await asyncio.sleep(0.01)
        head, _, _ = await connection.receive_request()
        await connection.reply(head, {"ok": True, "positions": [{"epoch": "e", "seq": 1}]})
        await connection.wait_closed()

    async with ScriptedServer(talk).running() as server:
        settings = config(answer_seconds=0.1, send_seconds=MAX_WAIT_SECONDS)
        async with Client(server.url, "x", config=settings) as client:
            position = await client.market.publish("USER_DATA", {})
            assert (position.seq, server.connection_count) == (1, 1)


async def test_black_hole_is_noticed_by_a_reader() -> None:
    async with running() as node, Proxy(node.port) as proxy:
        client = Client(proxy.url, node.token(), config=config(silence_seconds=0.2))
        async with client, client.market.prices("A"):
            proxy.connections[0].blackhole()
            await until(lambda: client.stats.reconnects == 1)


async def test_answered_pings_keep_a_quiet_connection() -> None:
    async with running() as node, client_of(node, silence_seconds=0.1) as client:
        connection = client._supervisor._connection
        assert connection is not None
        for _ in range(3):
            before = connection._pinged_at
            await until(lambda before=before: connection._pinged_at > before)
        assert connection.close_reason is None
        assert client.stats.reconnects == 0
