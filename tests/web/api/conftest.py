"""Starts servers in the process, and ends what is connected to them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.kit.server.api import ApiNode, StartApi, StartClient, open_api


@pytest.fixture
async def start_api(aiohttp_client: StartClient) -> AsyncIterator[StartApi]:
    """Start a server and a client of its API; see `open_api`."""
    started: list[ApiNode] = []

    async def start(**options: Any) -> ApiNode:
        started.append(await open_api(aiohttp_client, **options))
        return started[-1]

    yield start
    for node in started:
        node.cut()
        await node.until_empty()
