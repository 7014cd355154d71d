"""What tests of the client share: clients in a hurry, and looks at what they leave behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from client_sdk import BackoffConfig, Client, ClientConfig, ClientState, ServerUnavailable
from client_sdk.connection.tokens import TokenSource
from tests.kit.patience import PATIENCE_SECONDS
from tests.kit.server.in_process import Running

HURRY = BackoffConfig(least_seconds=0.001, first_seconds=0.002, most_seconds=0.01)


def config(**changes: Any) -> ClientConfig:
    """Short waits, as tests want them."""
    return ClientConfig(
        **{"backoff": HURRY, "start_seconds": PATIENCE_SECONDS, "close_seconds": 0.5, **changes}
    )


def client_of(floor: Running, token: TokenSource = None, **changes: Any) -> Client:
    """A client of this server."""
    return Client(floor.url, floor.token() if token is None else token, config=config(**changes))


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so; fails the test when it never is."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


async def in_vain(client: Client) -> ServerUnavailable:
    """Why it does not start: as soon as an attempt has failed, the time for it is over."""
    loop = asyncio.get_running_loop()
    now = loop.time
    starting = asyncio.ensure_future(client.start())
    await until(lambda: client.state is ClientState.OFFLINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", lambda: now() + PATIENCE_SECONDS)
        with pytest.raises(ServerUnavailable) as caught:
            await starting
    return caught.value


def cut(floor: Running) -> None:
    """The server is gone for everybody, without a word."""
    for connection in floor.server.sockets.connections():
        connection.abort("a test cuts it")


def tasks() -> set[str]:
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
async def nothing_left() -> AsyncIterator[None]:
    """After the block no task of a client runs."""
    yield
    assert tasks() == set()
