"""Runs the application on a socket until it is told to stop, and then lets everybody go."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable

from aiohttp import web

from server.app import SERVER, create_app
from server.settings import Settings

# The kernel cuts this to somaxconn; aiohttp's 128 loses connections in a storm.
_BACKLOG = 4096


async def serve(
    settings: Settings,
    *,
    announce: Callable[[str], None],
    console_token: str | None = None,
) -> None:
    """Serve until SIGTERM, which drains, or SIGINT, which does not wait."""
    app = create_app(settings, console_token=console_token)
    stopping: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def stop(drain: bool) -> None:
        if not stopping.done():
            stopping.set_result(drain)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop, True)
    loop.add_signal_handler(signal.SIGINT, stop, False)
    runner = web.AppRunner(
        app,
        access_log=None,
        # Closes who is slow to send a request's head, as well as who is idle between two.
        keepalive_timeout=settings.limits.head_timeout_seconds,
        # A poll that its client gave up must end, not wait for the next message.
        handler_cancellation=True,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    try:
        listener = _listen(settings.server.host, settings.server.port)
        await web.SockSite(runner, listener, backlog=_BACKLOG).start()
        # What start-up made stays for ever: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        host, port = listener.getsockname()[:2]
        announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        if await stopping:
            await app[SERVER].drain(settings.server.drain_seconds)
    finally:
        await runner.cleanup()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)
