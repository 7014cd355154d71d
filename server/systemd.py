"""Notifies systemd: ready, stopping, and that the event loop still runs (sd_notify(3))."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping

from server.tasks import cancel_and_wait

logger = logging.getLogger(__name__)

# systemd reads at once, unless the machine hangs.
_SEND_SECONDS = 0.1


class SystemdNotifier:
    """Sends states to systemd; a no-op if it did not start this process with `Type=notify`."""

    def __init__(self, address: str = "", *, watchdog_seconds: float = 0.0) -> None:
        self._address = address
        self._watchdog_seconds = watchdog_seconds
        self._is_ready = False

    @staticmethod
    def from_environ(environ: Mapping[str, str]) -> "SystemdNotifier":
        """The notifier that `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` describe."""
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        seconds = int(microseconds) / 1e6 if is_ours and microseconds.isdecimal() else 0.0
        return SystemdNotifier(environ.get("NOTIFY_SOCKET", ""), watchdog_seconds=seconds)

    def ready(self) -> None:
        """Report that clients are served."""
        self._send("READY=1")
        self._is_ready = True

    def stopping(self) -> None:
        """Report that the drain has begun."""
        self._send("STOPPING=1")

    @contextlib.asynccontextmanager
    async def watchdog(self) -> AsyncIterator[None]:
        """Report inside the context, twice in each watchdog time, that the event loop runs."""
        if not self._address or not self._watchdog_seconds:
            yield
            return
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._report_alive(), name="floorcast-watchdog")
        try:
            yield
        finally:
            await cancel_and_wait(task)

    async def _report_alive(self) -> None:
        while True:
            # systemd watches from READY on; before that, it might not read.
            if self._is_ready:
                self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_seconds / 2)

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # An address that begins with @ is abstract.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_SEND_SECONDS)
                sock.sendto(state.encode(), address)
        except OSError as error:
            logger.warning("cannot notify systemd", extra={"why": str(error)})
