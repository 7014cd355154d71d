"""Runs the application on a socket until it is told to stop, and then lets everybody go."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from server.app import SERVER, Server, create_app
from server.settings import Settings
from server.transport import HTTP_LOGGER

# The kernel cuts this to somaxconn; aiohttp's 128 loses connections in a storm.
_BACKLOG = 4096
_MIN_UNSENT_BYTES = 16 * 1024
# Hardly anything here is garbage that only the collector finds, and a full collection with many
# clients is a stop of many milliseconds: a flush makes as many lists as there are clients.
_COLLECTOR_THRESHOLDS = (50_000, 20, 100)


class Shutdown:
    """How the process is told to end: SIGTERM drains, SIGINT and a second signal do not wait."""

    def __init__(self) -> None:
        self._requested = asyncio.Event()
        self._immediate = asyncio.Event()

    @staticmethod
    def on_signals() -> "Shutdown":
        """Told by the signals of this process."""
        stopping = Shutdown()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stopping.on_sigterm)
        loop.add_signal_handler(signal.SIGINT, stopping.request_now)
        return stopping

    def on_sigterm(self) -> None:
        """Let everybody go in peace; who says it again has no time for that."""
        if self._requested.is_set():
            self._immediate.set()
        self._requested.set()

    def request_drain(self) -> None:
        """Let everybody go, as was decided here: nobody has lost patience."""
        self._requested.set()

    def request_now(self) -> None:
        """Do not wait for anybody."""
        self._immediate.set()
        self._requested.set()

    async def wait_and_drain(self, server: Server, drain_seconds: float) -> None:
        """Wait until told, and drain the server unless there is no time for it."""
        await self._requested.wait()
        if self._immediate.is_set():
            return
        loop = asyncio.get_running_loop()
        hurried = loop.create_task(self._immediate.wait(), name="floorcast-hurried")
        draining = loop.create_task(server.drain(drain_seconds), name="floorcast-drain")
        await asyncio.wait({hurried, draining}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        draining.cancel()
        await asyncio.wait({hurried, draining})
        if not draining.cancelled():
            await draining


class Endpoint:
    """Where clients reach the application."""

    def __init__(self, url: str, site: web.SockSite) -> None:
        self.url = url
        self._site: web.SockSite | None = site

    async def close(self) -> None:
        """Take in nobody else; who is in stays."""
        if self._site is not None:
            site, self._site = self._site, None
            await site.stop()


async def serve(
    settings: Settings,
    *,
    announce: Callable[[str], None],
    console_token: str | None = None,
) -> None:
    """Serve until SIGTERM, which drains, or SIGINT, which does not wait."""
    app = create_app(settings, console_token=console_token)
    stopping = Shutdown.on_signals()
    async with run_app(app, settings, open_listener(settings)) as place:
        freeze_heap()
        announce(place.url)
        await stopping.wait_and_drain(app[SERVER], settings.server.drain_seconds)


def freeze_heap() -> None:
    """What start-up made stays for ever: the collector need not look at it again."""
    gc.collect()
    gc.freeze()


@contextlib.asynccontextmanager
async def run_app(
    app: web.Application, settings: Settings, listener: socket.socket
) -> AsyncIterator[Endpoint]:
    """Run the application on this socket, which is closed with it."""
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
    thresholds = gc.get_threshold()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)
    try:
        await runner.setup()
        site = web.SockSite(runner, listener, backlog=_BACKLOG)
        await site.start()
        yield Endpoint(url_of(listener), site)
    finally:
        gc.set_threshold(*thresholds)
        await runner.cleanup()
        listener.close()


def url_of(listener: socket.socket) -> str:
    """Where clients reach what listens there."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def open_listener(
    settings: Settings, *, port: int | None = None, shared: bool = False
) -> socket.socket:
    """Listen where the settings say; several `shared` ones may listen at one address."""
    host = settings.server.host
    listener = socket.create_server(
        (host, settings.server.port if port is None else port),
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=_BACKLOG,
        reuse_port=shared,
    )
    if settings.delivery.buffer_bytes:
        # What the network does not take stays here, where it can still be merged or let go,
        # instead of growing old in the kernel: a megabyte and more for each slow client.
        # Connections inherit it.
        unsent = max(_MIN_UNSENT_BYTES, settings.delivery.buffer_bytes // 8)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)
    return listener
