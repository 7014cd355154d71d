"""A request that cannot be sent fails in its caller only."""

import asyncio
import gc
from typing import Any

import pytest

from client_sdk import ConnectionLost
from tests.kit.clients.sdk import client_of
from tests.kit.server.in_process import running


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
