"""SDK clients with short delays, and checks for what they leave behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from client_sdk import BackoffConfig, Client, ClientConfig, ClientState, ServerUnavailable
from client_sdk.connection.tokens import TokenSource
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.server.in_process import RunningServer

FAST_BACKOFF = BackoffConfig(least_seconds=0.001, first_seconds=0.002, most_seconds=0.01)


def config(**changes: Any) -> ClientConfig:
    """A configuration with short delays."""
    defaults = {
        "backoff": FAST_BACKOFF,
        "start_seconds": MAX_WAIT_SECONDS,
        "close_seconds": 0.5,
    }
    return ClientConfig(**{**defaults, **changes})


def client_of(node: RunningServer, token: TokenSource = None, **changes: Any) -> Client:
    """A client of this server."""
    return Client(node.url, node.token() if token is None else token, config=config(**changes))


async def start_error(client: Client) -> ServerUnavailable:
    """The error of a start that times out, right after its first failed attempt."""
    loop = asyncio.get_running_loop()
    now = loop.time
    starting = asyncio.ensure_future(client.start())
    await until(lambda: client.state is ClientState.OFFLINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", lambda: now() + MAX_WAIT_SECONDS)
        with pytest.raises(ServerUnavailable) as caught:
            await starting
    return caught.value


def abort_connections(node: RunningServer) -> None:
    """Cut all connections of a server without closing handshakes."""
    for connection in node.server.sockets.connections():
        connection.abort("cut by a test")


def client_tasks() -> set[str]:
    """The names of the running tasks of SDK clients."""
    names = {
        "floorcast-supervisor",
        "floorcast-read",
        "floorcast-subscriptions",
        "floorcast-publisher",
        "floorcast-sessions",
        "floorcast-callback",
        "floorcast-notices",
    }
    # The server in the same process has a task of this name too.
    names.discard("floorcast-publisher")
    return {each.get_name() for each in asyncio.all_tasks()} & names


@contextlib.asynccontextmanager
async def no_leftover_tasks() -> AsyncIterator[None]:
    """Assert that no task of a client runs after the block."""
    yield
    assert client_tasks() == set()
