"""Tests the hand-over of a worker to its successor."""

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
    """A serving worker, an accepted client, and the supervisor's control socket."""

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
    supervisor_end, worker_end = socket.socketpair()
    supervisor, control = await Control.open(supervisor_end), await Control.open(worker_end)
    async with (
        run_app(app, settings, open_listener(settings)) as endpoint,
        aiohttp.ClientSession() as client,
    ):
        following = asyncio.create_task(
            follow_supervisor(
                control, app[SERVER], endpoint, stopping, join_grace_seconds=join_grace_seconds
            )
        )
        serving = asyncio.create_task(stopping.wait_and_drain(app[SERVER], drain_seconds=5))
        try:
            yield WorkerRig(supervisor, client, endpoint.url)
        finally:
            for task in (following, serving):
                task.cancel()
            await asyncio.wait((following, serving))
            supervisor.close()
            control.close()


async def test_client_accepted_before_the_hand_over_can_join() -> None:
    async with serving(join_grace_seconds=60) as rig:
        assert await rig.get_status("/health/live") == 200
        rig.supervisor.write_eof()
        message = await rig.supervisor.receive()
        assert message is not None
        assert message[0] is MessageKind.HANDED_OVER
        # On the existing connection: the listener is closed.
        assert await rig.get_status("/socket.io/?EIO=4&transport=polling") == 200


async def test_worker_drains_after_the_hand_over() -> None:
    async with serving(join_grace_seconds=0) as rig:
        assert await rig.get_status("/health/ready") == 200
        rig.supervisor.write_eof()
        while (status := await rig.get_status("/health/ready")) == 200:
            pass
        assert status == 503
