"""The life of a worker: it serves on the socket that it was given, as its supervisor tells it."""

import asyncio
import os
import socket

from server.access import ConfigurationError
from server.app import SERVER, Server, create_app
from server.serving import Endpoint, Shutdown, freeze_heap, run_app
from server.settings import load_settings
from server.workers.control import Control, MessageKind, WorkerSpec

# Who was accepted before the successor was there has so long to say what it wants, and to join.
_JOIN_GRACE_SECONDS = 1.0


async def work(control_fd: int, listener_fd: int) -> int:
    """Serve until told to stop; the code to exit with."""
    control = await Control.open(socket.socket(fileno=control_fd))
    try:
        await _serve(await control.receive_spec(), control, socket.socket(fileno=listener_fd))
    except ConfigurationError as error:
        control.send(MessageKind.FAILED, message=str(error), code=2)
        return 2
    finally:
        control.close()
    return 0


async def _serve(spec: WorkerSpec, control: Control, listener: socket.socket) -> None:
    settings = load_settings(flags=spec.flags, environ=os.environ, file=spec.config)
    app = create_app(settings, console_token=spec.console_token, run_feed=False)
    stopping = Shutdown.on_signals()
    async with run_app(app, settings, listener) as place:
        freeze_heap()
        control.send(MessageKind.READY)
        obeying = asyncio.get_running_loop().create_task(
            follow_supervisor(control, app[SERVER], place, stopping), name="floorcast-obey"
        )
        await stopping.wait_and_drain(app[SERVER], settings.server.drain_seconds)
        obeying.cancel()
        await asyncio.wait([obeying])


async def follow_supervisor(
    control: Control,
    server: Server,
    endpoint: Endpoint,
    stopping: Shutdown,
    *,
    join_grace_seconds: float = _JOIN_GRACE_SECONDS,
) -> None:
    """Do what is said, until nothing more will be.

    The other end closes when another worker has taken over, or when the supervisor has died: in
    both cases clients that come now belong to somebody else who listens at the same address.
    """
    while (heard := await control.receive()) is not None:
        if heard[0] is MessageKind.FEED:
            server.start_feed()
    await endpoint.close()
    await server.stop_feed()
    control.send(MessageKind.HANDED_OVER)
    await asyncio.sleep(join_grace_seconds)
    stopping.request_drain()
