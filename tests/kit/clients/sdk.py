"""What tests of the client share: clients in a hurry, and looks at what they leave behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from client_sdk import BackoffConfig, Client, ClientConfig, ClientState, ServerUnavailable
from client_sdk.connection.tokens import TokenSource
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import RunningServer

FAST_BACKOFF = BackoffConfig(least_seconds=0.001, first_seconds=0.002, most_seconds=0.01)


def config(**changes: Any) -> ClientConfig:
    """Short waits, as tests want them."""
    return ClientConfig(
        **{
            "backoff": FAST_BACKOFF,
            "start_seconds": MAX_WAIT_SECONDS,
            "close_seconds": 0.5,
            **changes,
        }
    )


def client_of(floor: RunningServer, token: TokenSource = None, **changes: Any) -> Client:
    """A client of this server."""
    return Client(floor.url, floor.token() if token is None else token, config=config(**changes))


async def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something is so; fails the test when it never is."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


async def start_error(client: Client) -> ServerUnavailable:
    """Why it does not start: as soon as an attempt has failed, the time for it is over."""
    loop = asyncio.get_running_loop()
    now = loop.time
    starting = asyncio.ensure_future(client.start())
    await wait_until(lambda: client.state is ClientState.OFFLINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", lambda: now() + MAX_WAIT_SECONDS)
        with pytest.raises(ServerUnavailable) as caught:
            await starting
    return caught.value


def abort_connections(floor: RunningServer) -> None:
    """The server is gone for everybody, without a word."""
    for connection in floor.server.sockets.connections():
        connection.abort("a test cuts it")


def client_tasks() -> set[str]:
    """The client's own tasks; the server's have names of their own kind."""
    names = {
        "floorcast-supervisor",
        "floorcast-read",
        "floorcast-subscriptions",
        "floorcast-publisher",
        "floorcast-sessions",
        "floorcast-callback",
        "floorcast-notices",
    }
    # The server has a publisher too: for threads.
    names.discard("floorcast-publisher")
    return {each.get_name() for each in asyncio.all_tasks()} & names


@contextlib.asynccontextmanager
async def no_leftover_tasks() -> AsyncIterator[None]:
    """After the block no task of a client runs."""
    yield
    assert client_tasks() == set()
