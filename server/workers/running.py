"""Runs a supervisor until a signal stops it."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence

from server.server import SystemClock
from server.serving import open_listener, run_admin
from server.settings import Settings
from server.systemd import SystemdNotifier
from server.workers.process import Launcher
from server.workers.restarts import RestartLimit
from server.workers.supervisor import Supervisor


def open_listeners(settings: Settings) -> list[socket.socket]:
    """Open a listening socket for each worker, all at the configured address (SO_REUSEPORT)."""
    first = open_listener(settings, shared=True)
    port = first.getsockname()[1]
    others = range(1, settings.server.workers)
    return [first, *(open_listener(settings, port=port, shared=True) for _ in others)]


async def supervise(
    launcher: Launcher,
    listeners: Sequence[socket.socket],
    *,
    settings: Settings,
    check_settings: Callable[[], object],
    announce: Callable[[], None],
) -> bool:
    """Run workers until SIGTERM, which drains, or SIGINT; SIGHUP renews them.

    `check_settings` raises `ConfigurationError` if the current settings are invalid. Returns
    whether all workers ended without being killed.
    """
    supervisor = Supervisor(
        launcher,
        listeners,
        clock=SystemClock(),
        limit=RestartLimit(),
        drain_seconds=settings.server.drain_seconds,
        check_settings=check_settings,
        hang_seconds=settings.server.hang_seconds,
    )
    systemd = SystemdNotifier.from_environ(os.environ)

    def stop(signum: signal.Signals) -> None:
        systemd.stopping()
        supervisor.stop(signum)

    def ready() -> None:
        announce()
        systemd.ready()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum)
    loop.add_signal_handler(signal.SIGHUP, supervisor.renew)
    async with run_admin(settings, supervisor.reports), systemd.watchdog():
        return await supervisor.run(ready)
