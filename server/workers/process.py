"""Starts a worker process, and controls it from the supervisor."""

import asyncio
import contextlib
import dataclasses
import logging
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.metrics import Report
from server.workers.control import Control, MessageKind, WorkerSpec
from server.workers.failures import WorkerFailed

logger = logging.getLogger(__name__)

# Imports take long on a busy machine.
READY_SECONDS = 60.0
_HAND_OVER_SECONDS = 10.0
_REPORT_SECONDS = 2.0
_CLOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts workers: new interpreters that inherit only their two sockets.

    The command gets the file descriptors of the control socket and of the listening socket.
    """

    command: Sequence[str]
    environ: Mapping[str, str]
    spec: WorkerSpec

    async def launch(self, number: int, listener: socket.socket) -> "Worker":
        """Start a worker on this listening socket."""
        parent_end, child_end = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                str(child_end.fileno()),
                str(listener.fileno()),
                pass_fds=(child_end.fileno(), listener.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                env=dict(self.environ),
                # Ctrl-C goes to the supervisor only, which forwards it.
                start_new_session=True,
            )
        finally:
            child_end.close()
        control = await Control.open(parent_end)
        control.send_spec(dataclasses.replace(self.spec, number=number))
        return Worker(number, process, control)


class Worker:
    """The process of a worker, and what it has sent."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, control: Control) -> None:
        self.number = number
        self._process = process
        self._control = control
        loop = asyncio.get_running_loop()
        # None if it has ended instead.
        self._started: asyncio.Future[tuple[MessageKind, Mapping[str, Any]] | None]
        self._started = loop.create_future()
        self._has_handed_over = asyncio.Event()
        # A worker of an older release answers neither pings nor requests for a report.
        self._answers = False
        self._report: asyncio.Future[Report | None] | None = None
        # What it has sent last; while it drains, it sends its report by itself.
        self.last_report: Report | None = None
        # Pings since it has last answered one.
        self.missed_pings = 0
        self._reading = loop.create_task(self._read(), name=f"floorcast-worker-{number}")

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _read(self) -> None:
        """Handle the messages of the worker until its end closes."""
        while (message := await self._control.receive()) is not None:
            self._on_message(*message)
        self._on_closed()

    def _on_message(self, kind: MessageKind, body: Mapping[str, Any]) -> None:
        if kind in (MessageKind.READY, MessageKind.FAILED) and not self._started.done():
            self._answers = bool(body.get("answers"))
            self._started.set_result((kind, body))
        elif kind is MessageKind.HANDED_OVER:
            self._has_handed_over.set()
        elif kind is MessageKind.PONG:
            self.missed_pings = 0
        elif kind is MessageKind.REPORT:
            self.last_report = Report.parse(body)
            self._settle_report(self.last_report)

    def _on_closed(self) -> None:
        if not self._started.done():
            self._started.set_result(None)
        self._has_handed_over.set()
        self._settle_report(None)

    def _settle_report(self, report: Report | None) -> None:
        waiting, self._report = self._report, None
        if waiting is not None and not waiting.done():
            waiting.set_result(report)

    async def wait_ready(self) -> None:
        """Wait until it serves clients; raises `WorkerFailed` once it has ended instead."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                message = await asyncio.shield(self._started)
        except TimeoutError:
            await self.kill()
            raise WorkerFailed(f"worker {self.number} did not become ready", 1) from None
        if message is None:
            code = await self.wait_ended()
            raise WorkerFailed(f"worker {self.number} ended with {code} while starting", 1)
        kind, body = message
        if kind is MessageKind.FAILED:
            await self.wait_ended()
            raise WorkerFailed(body["message"], body["code"])

    def start_feed(self) -> None:
        """Ask it to run the feed."""
        self._control.send(MessageKind.FEED)

    def ping(self) -> None:
        """Ask it to answer, and count the ping as missed until it does."""
        if self._answers:
            self.missed_pings += 1
            self._control.send(MessageKind.PING)

    async def report(self) -> Report | None:
        """Its metrics; None if it does not answer in time."""
        if not self._answers or self._reading.done():
            return None
        if self._report is None:
            self._report = asyncio.get_running_loop().create_future()
            self._control.send(MessageKind.READ)
        waiting = self._report
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                return await asyncio.shield(waiting)
        except TimeoutError:
            if self._report is waiting:
                self._report = None
            return None

    async def hand_over(self) -> None:
        """Make it close its listener and stop its feed; it then drains its clients and exits.

        Kills it if it does not answer in time.
        """
        if self._answers:
            # Nothing can be asked later: from now on it reports by itself.
            self._control.send(MessageKind.READ)
        self._control.write_eof()
        try:
            async with asyncio.timeout(_HAND_OVER_SECONDS):
                await self._has_handed_over.wait()
        except TimeoutError:
            logger.error("killing a worker that does not hand over", extra={"worker": self.number})
            await self.kill()

    def send_signal(self, signum: signal.Signals) -> None:
        """Send a signal; a no-op if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)

    async def kill(self) -> None:
        """Kill it and wait for its end."""
        self.send_signal(signal.SIGKILL)
        await self.wait_ended()

    async def wait_ended(self) -> int:
        """Wait for its end; return the exit code."""
        code = await self._process.wait()
        # What it sent before is still read.
        await asyncio.wait({self._reading}, timeout=_CLOSE_SECONDS)
        self._reading.cancel()
        self._control.close()
        return code
