"""What a worker does when another has taken its place."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from server.app import SERVER, create_app
from server.serving import Shutdown, open_listener, run_app
from server.settings import load_settings
from server.workers.control import Control, MessageKind
from server.workers.working import follow_supervisor
from tests.kit.server.in_process import SECRET


@dataclass(frozen=True, slots=True)
class WorkerRig:
    """A worker that serves, a client that it has accepted, and what its supervisor says to it."""

    supervisor: Control
    client: aiohttp.ClientSession
    url: str

    async def get_status(self, path: str) -> int:
        async with self.client.get(self.url + path) as response:
            await response.read()
            return response.status


@contextlib.asynccontextmanager
async def serving(*, join_grace_seconds: float) -> AsyncIterator[WorkerRig]:
    settings = load_settings(flags={"auth.secret": SECRET, "server.port": 0}, environ={})
    app, stopping = create_app(settings), Shutdown()
    ours, theirs = socket.socketpair()
    supervisor, control = await Control.open(ours), await Control.open(theirs)
    async with (
        run_app(app, settings, open_listener(settings)) as place,
        aiohttp.ClientSession() as client,
    ):
        obeying = asyncio.create_task(
            follow_supervisor(
                control, app[SERVER], place, stopping, join_grace_seconds=join_grace_seconds
            )
        )
        serving = asyncio.create_task(stopping.wait_and_drain(app[SERVER], drain_seconds=5))
        try:
            yield WorkerRig(supervisor, client, place.url)
        finally:
            for task in (obeying, serving):
                task.cancel()
            await asyncio.wait((obeying, serving))
            supervisor.close()
            control.close()


async def test_who_was_accepted_before_the_hand_over_may_still_come_in() -> None:
    async with serving(join_grace_seconds=60) as stage:
        assert await stage.get_status("/health/live") == 200
        stage.supervisor.write_eof()
        heard = await stage.supervisor.receive()
        assert heard is not None
        assert heard[0] is MessageKind.HANDED_OVER
        # On the connection that is there: nobody listens any more.
        assert await stage.get_status("/socket.io/?EIO=4&transport=polling") == 200


async def test_a_worker_that_has_handed_over_drains() -> None:
    async with serving(join_grace_seconds=0) as stage:
        assert await stage.get_status("/health/ready") == 200
        stage.supervisor.write_eof()
        while (status := await stage.get_status("/health/ready")) == 200:
            pass
        assert status == 503
