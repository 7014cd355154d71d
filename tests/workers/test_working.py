"""What a worker does when another has taken its place."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from server.app import SERVER, create_app
from server.serving import Stopping, listening, open_listener
from server.settings import load_settings
from server.workers.control import Control, Word
from server.workers.working import obey
from tests.kit.server.in_process import SECRET


@dataclass(frozen=True, slots=True)
class Stage:
    """A worker that serves, a client that it has accepted, and what its supervisor says to it."""

    supervisor: Control
    client: aiohttp.ClientSession
    url: str

    async def ask(self, path: str) -> int:
        async with self.client.get(self.url + path) as response:
            await response.read()
            return response.status


@contextlib.asynccontextmanager
async def serving(*, arriving_seconds: float) -> AsyncIterator[Stage]:
    settings = load_settings(flags={"auth.secret": SECRET, "server.port": 0}, environ={})
    app, stopping = create_app(settings), Stopping()
    ours, theirs = socket.socketpair()
    supervisor, control = await Control.on(ours), await Control.on(theirs)
    async with (
        listening(app, settings, open_listener(settings)) as place,
        aiohttp.ClientSession() as client,
    ):
        obeying = asyncio.create_task(
            obey(control, app[SERVER], place, stopping, arriving_seconds=arriving_seconds)
        )
        serving = asyncio.create_task(stopping.let_go(app[SERVER], drain_seconds=5))
        try:
            yield Stage(supervisor, client, place.url)
        finally:
            for task in (obeying, serving):
                task.cancel()
            await asyncio.wait((obeying, serving))
            supervisor.close()
            control.close()


async def test_who_was_accepted_before_the_hand_over_may_still_come_in() -> None:
    async with serving(arriving_seconds=60) as stage:
        assert await stage.ask("/health/live") == 200
        stage.supervisor.let_go()
        heard = await stage.supervisor.heard()
        assert heard is not None
        assert heard[0] is Word.HANDED_OVER
        # On the connection that is there: nobody listens any more.
        assert await stage.ask("/socket.io/?EIO=4&transport=polling") == 200


async def test_a_worker_that_has_handed_over_drains() -> None:
    async with serving(arriving_seconds=0) as stage:
        assert await stage.ask("/health/ready") == 200
        stage.supervisor.let_go()
        while (status := await stage.ask("/health/ready")) == 200:
            pass
        assert status == 503
