"""Runs the application on a socket until a signal, then drains its clients."""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from aiohttp import web, web_response

from server.access import ConfigurationError
from server.app import SERVER, create_app
from server.descriptors import raise_limit
from server.measuring import report
from server.metrics import Reports, create_admin_app
from server.server import Server
from server.settings import Settings
from server.systemd import SystemdNotifier
from server.transport import HTTP_LOGGER, HandshakeProtocols
from server.web import SERVER_NAME, shape_malformed_requests

logger = logging.getLogger(__name__)

# The kernel caps this at somaxconn; aiohttp's 128 loses connections in a reconnect storm.
BACKLOG = 4096
# A flush creates a list for each client, which would trigger frequent collections. A full
# collection with many clients pauses for many milliseconds, and finds hardly any cycles: there is
# none before 100 million objects. With a first threshold of 50,000, which counts only the surplus
# of new objects, young collections of 300,000 objects paused for 50 ms.
_COLLECTOR_THRESHOLDS = (5_000, 10, 2_000)
# By default the admin listener has a port of its own for each public one.
_ADMIN_PORT_OFFSET = 1000
_MAX_PORT = 65_535
# Without a drain, the parts have this long to stop.
_MIN_STOP_SECONDS = 5.0


class Shutdown:
    """Shutdown requests: SIGTERM drains; SIGINT or a second signal stops at once."""

    def __init__(self) -> None:
        self._requested = asyncio.Event()
        self._immediate = asyncio.Event()

    @staticmethod
    def on_signals() -> "Shutdown":
        """Create a shutdown that the signals of this process request."""
        shutdown = Shutdown()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, shutdown.on_sigterm)
        loop.add_signal_handler(signal.SIGINT, shutdown.request_now)
        return shutdown

    def on_sigterm(self) -> None:
        """Request a drain; the second call requests an immediate stop."""
        if self._requested.is_set():
            self._immediate.set()
        self._requested.set()

    def request_drain(self) -> None:
        """Request a drain, without counting as a second signal."""
        self._requested.set()

    def request_now(self) -> None:
        """Request an immediate stop."""
        self._immediate.set()
        self._requested.set()

    async def wait_and_drain(
        self, server: Server, drain_seconds: float, *, on_request: Callable[[], None] | None = None
    ) -> None:
        """Wait for a request, then drain the server, until an immediate stop is requested."""
        await self._requested.wait()
        if on_request is not None:
            on_request()
        if self._immediate.is_set():
            return
        loop = asyncio.get_running_loop()
        immediate = loop.create_task(self._immediate.wait(), name="floorcast-immediate")
        draining = loop.create_task(server.drain(drain_seconds), name="floorcast-drain")
        await asyncio.wait({immediate, draining}, return_when=asyncio.FIRST_COMPLETED)
        immediate.cancel()
        draining.cancel()
        await asyncio.wait({immediate, draining})
        if not draining.cancelled():
            await draining


class Endpoint:
    """The address and the listener of a running application."""

    def __init__(self, url: str, listener: asyncio.Server) -> None:
        self.url = url
        self._listener = listener

    def close(self) -> None:
        """Accept no new connections; open ones stay. A no-op the second time."""
        self._listener.close()


async def serve(
    settings: Settings,
    *,
    announce: Callable[[str], None],
    console_token: str | None = None,
) -> None:
    """Serve until SIGTERM, which drains, or SIGINT, which stops at once."""
    app = create_app(settings, console_token=console_token)
    shutdown = Shutdown.on_signals()

    async def read() -> Reports:
        return {"0": report(app[SERVER])}

    systemd = SystemdNotifier.from_environ(os.environ)

    def begin_stop() -> None:
        systemd.stopping()
        _exit_after(settings.server.drain_seconds)

    async with (
        run_app(app, settings, open_listener(settings)) as endpoint,
        run_admin(settings, read),
        systemd.watchdog(),
    ):
        freeze_heap()
        announce(endpoint.url)
        systemd.ready()
        await shutdown.wait_and_drain(
            app[SERVER], settings.server.drain_seconds, on_request=begin_stop
        )


def _exit_after(seconds: float) -> None:
    """End this process after a time, even if something blocks its event loop or its stop."""
    seconds = max(seconds, _MIN_STOP_SECONDS)

    def end() -> None:
        logger.error("the server did not stop in time: exiting", extra={"seconds": seconds})
        logging.shutdown()
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def freeze_heap() -> None:
    """Exclude the objects of start-up, which live for ever, from garbage collection."""
    gc.collect()
    gc.freeze()


@contextlib.asynccontextmanager
async def run_app(
    app: web.Application, settings: Settings, listener: socket.socket
) -> AsyncIterator[Endpoint]:
    """Run the application on this socket inside the context, then close the socket."""
    # The default of responses to malformed requests, which no handler prepares.
    web_response.SERVER_SOFTWARE = SERVER_NAME  # type: ignore[attr-defined]
    shape_malformed_requests()
    raise_limit()
    runner = web.AppRunner(app, logger=HTTP_LOGGER, **_runner_options(settings))
    try:
        with tuned_collector():
            await runner.setup()
            async with _accept(runner, app[SERVER], settings, listener) as endpoint:
                yield endpoint
    finally:
        await runner.cleanup()
        listener.close()


@contextlib.asynccontextmanager
async def _accept(
    runner: web.AppRunner, server: Server, settings: Settings, listener: socket.socket
) -> AsyncIterator[Endpoint]:
    """Accept connections inside the context."""
    assert runner.server is not None
    engine = server.sockets.eio
    protocols = HandshakeProtocols(
        engine,
        runner.server,
        server.tasks,
        timeout_seconds=settings.limits.head_timeout_seconds,
    )
    accepting = await protocols.listen(
        listener, backlog=BACKLOG, max_unsent_bytes=engine.config.max_unsent_bytes
    )
    endpoint = Endpoint(url_of(listener), accepting)
    try:
        yield endpoint
    finally:
        endpoint.close()
        protocols.close()


@contextlib.asynccontextmanager
async def run_admin(
    settings: Settings, read: Callable[[], Awaitable[Reports]]
) -> AsyncIterator[str | None]:
    """Run the admin listener inside the context; yields its URL, None if it is off.

    Raises `ConfigurationError` if its address cannot be used.
    """
    listener = _open_admin_listener(settings)
    if listener is None:
        yield None
        return
    if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        logger.warning("the admin listener, which asks for no token, is open to other machines")
    runner = web.AppRunner(create_admin_app(read), logger=HTTP_LOGGER, **_runner_options(settings))
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        logger.info("metrics are at %s/metrics", url_of(listener))
        yield url_of(listener)
    finally:
        await runner.cleanup()
        listener.close()


def _open_admin_listener(settings: Settings) -> socket.socket | None:
    admin = settings.admin
    if admin.port is not None:
        return _listen(admin.host, admin.port) if admin.port else None
    try:
        return _listen(admin.host, _default_admin_port(settings.server.port))
    except ConfigurationError as error:
        # Nobody has asked for it: a second server on this machine must start.
        logger.warning("metrics are off, set admin.port to turn them on", extra={"why": str(error)})
        return None


def _default_admin_port(port: int) -> int:
    if not port:
        return 0
    above = port + _ADMIN_PORT_OFFSET
    return above if above <= _MAX_PORT else port - _ADMIN_PORT_OFFSET


def run_options(settings: Settings) -> dict[str, Any]:
    """The arguments of `web.run_app`, as `floorcast serve` runs an application."""
    return {
        "host": settings.server.host,
        "port": settings.server.port,
        "backlog": BACKLOG,
        **_runner_options(settings),
    }


def _runner_options(settings: Settings) -> dict[str, Any]:
    return {
        "access_log": None,
        # Limits the time to send a request's head, and the idle time between requests.
        "keepalive_timeout": settings.limits.head_timeout_seconds,
        # Nobody reads a compressed body, and aiohttp would log what is wrong with it.
        "auto_decompress": False,
        # An abandoned poll must end at once, not at the next message.
        "handler_cancellation": True,
        "shutdown_timeout": 1.0,
    }


@contextlib.contextmanager
def tuned_collector() -> Iterator[None]:
    """Collect garbage less often inside the context."""
    thresholds = gc.get_threshold()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def url_of(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def open_listener(
    settings: Settings, *, port: int | None = None, shared: bool = False
) -> socket.socket:
    """Open the listening socket of the settings; `shared` lets several use one address.

    Raises `ConfigurationError` if the address cannot be used.
    """
    port = settings.server.port if port is None else port
    return _listen(settings.server.host, port, shared=shared)


def _listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    try:
        return socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=BACKLOG,
            reuse_port=shared,
        )
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}") from None
