"""Starts a worker process, and controls it from the supervisor."""

import asyncio
import contextlib
import dataclasses
import logging
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.workers.control import Control, MessageKind, WorkerSpec
from server.workers.failures import WorkerFailed

logger = logging.getLogger(__name__)

# Imports take long on a busy machine.
READY_SECONDS = 60.0
_HAND_OVER_SECONDS = 10.0


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
    """The process of a worker."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, control: Control) -> None:
        self.number = number
        self._process = process
        self._control = control

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait_ready(self) -> None:
        """Wait until it serves clients; raises `WorkerFailed` once it has ended instead."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                message = await self._control.receive()
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

    async def hand_over(self) -> None:
        """Make it close its listener and stop its feed; it then drains its clients and exits.

        Kills it if it does not answer in time.
        """
        self._control.write_eof()
        try:
            async with asyncio.timeout(_HAND_OVER_SECONDS):
                while (message := await self._control.receive()) is not None:
                    if message[0] is MessageKind.HANDED_OVER:
                        return
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
        self._control.close()
        return code
