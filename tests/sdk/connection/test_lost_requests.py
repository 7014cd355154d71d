"""A question that cannot even be sent fails where it was asked, and nowhere else."""

import asyncio
import gc
from typing import Any

import pytest

from client_sdk import ConnectionLost
from tests.kit.clients.sdk import client_of
from tests.kit.server.in_process import running


async def test_request_on_a_dead_connection_raises_only_in_its_caller() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    await ask_into_a_dead_connection()
    # An error that nobody took is only noticed when its future is thrown away.
    gc.collect()
    assert complaints == []


async def ask_into_a_dead_connection() -> None:
    async with running() as node, client_of(node) as client:
        wire = client._supervisor._connection
        assert wire is not None
        # Dead already, and the task that reads has not noticed yet.
        wire._socket._writer.transport.abort()
        with pytest.raises(ConnectionLost):
            await wire.request("/market", "subscriptions", "{}", str)
