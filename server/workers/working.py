"""The life of a worker: it serves on the socket that it was given, as its supervisor tells it."""

import asyncio
import os
import socket

from server.access import ConfigurationError
from server.app import SERVER, Server, create_app
from server.serving import Listening, Stopping, listening, settle
from server.settings import load_settings
from server.workers.control import Control, Order, Word

# Who was accepted before the successor was there has so long to say what it wants, and to join.
_ARRIVING_SECONDS = 1.0


async def work(control_fd: int, listener_fd: int) -> int:
    """Serve until told to stop; the code to exit with."""
    control = await Control.on(socket.socket(fileno=control_fd))
    try:
        await _serve(await control.ordered(), control, socket.socket(fileno=listener_fd))
    except ConfigurationError as error:
        control.say(Word.FAILED, message=str(error), code=2)
        return 2
    finally:
        control.close()
    return 0


async def _serve(order: Order, control: Control, listener: socket.socket) -> None:
    settings = load_settings(flags=order.flags, environ=os.environ, file=order.config)
    app = create_app(settings, console_token=order.console_token, feeding=False)
    stopping = Stopping.on_signals()
    async with listening(app, settings, listener) as place:
        settle()
        control.say(Word.READY)
        obeying = asyncio.get_running_loop().create_task(
            obey(control, app[SERVER], place, stopping), name="floorcast-obey"
        )
        await stopping.let_go(app[SERVER], settings.server.drain_seconds)
        obeying.cancel()
        await asyncio.wait([obeying])


async def obey(
    control: Control,
    server: Server,
    place: Listening,
    stopping: Stopping,
    *,
    arriving_seconds: float = _ARRIVING_SECONDS,
) -> None:
    """Do what is said, until nothing more will be.

    The other end closes when another worker has taken over, or when the supervisor has died: in
    both cases clients that come now belong to somebody else who listens at the same address.
    """
    while (heard := await control.heard()) is not None:
        if heard[0] is Word.FEED:
            server.start_feeding()
    await place.close()
    await server.stop_feeding()
    control.say(Word.HANDED_OVER)
    await asyncio.sleep(arriving_seconds)
    stopping.in_peace()
