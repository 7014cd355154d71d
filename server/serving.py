"""Runs the application on a socket until it is told to stop, and then lets everybody go."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from server.app import SERVER, create_app
from server.settings import Settings
from server.transport import HTTP_LOGGER

# The kernel cuts this to somaxconn; aiohttp's 128 loses connections in a storm.
_BACKLOG = 4096
_LEAST_UNSENT_BYTES = 16 * 1024
# Hardly anything here is garbage that only the collector finds, and a full collection with many
# clients is a stop of many milliseconds: a flush makes as many lists as there are clients.
_COLLECTOR_THRESHOLDS = (50_000, 20, 100)


async def serve(
    settings: Settings,
    *,
    announce: Callable[[str], None],
    console_token: str | None = None,
) -> None:
    """Serve until SIGTERM, which drains, or SIGINT, which does not wait."""
    app = create_app(settings, console_token=console_token)
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[bool] = loop.create_future()

    def stop(drain: bool) -> None:
        if not stopping.done():
            stopping.set_result(drain)

    loop.add_signal_handler(signal.SIGTERM, stop, True)
    loop.add_signal_handler(signal.SIGINT, stop, False)
    async with listening(app, settings) as url:
        # What start-up made stays for ever: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        announce(url)
        if await stopping:
            await app[SERVER].drain(settings.server.drain_seconds)


@contextlib.asynccontextmanager
async def listening(app: web.Application, settings: Settings) -> AsyncIterator[str]:
    """Run the application on its socket; the URL is where clients reach it."""
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=HTTP_LOGGER,
        # Closes who is slow to send a request's head, as well as who is idle between two.
        keepalive_timeout=settings.limits.head_timeout_seconds,
        # A poll that its client gave up must end, not wait for the next message.
        handler_cancellation=True,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    thresholds = gc.get_threshold()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)
    try:
        listener = _listen(settings)
        await web.SockSite(runner, listener, backlog=_BACKLOG).start()
        host, port = listener.getsockname()[:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        gc.set_threshold(*thresholds)
        await runner.cleanup()


def _listen(settings: Settings) -> socket.socket:
    host = settings.server.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, settings.server.port), family=family, backlog=_BACKLOG)
    if settings.delivery.buffer_bytes:
        # What the network does not take stays here, where it can still be merged or let go,
        # instead of growing old in the kernel: a megabyte and more for each slow client.
        # Connections inherit it.
        unsent = max(_LEAST_UNSENT_BYTES, settings.delivery.buffer_bytes // 8)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)
    return listener
