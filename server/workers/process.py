"""One worker as its supervisor sees it: a process that is started, told things and waited for."""

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

# Starting is reading some megabytes of code; on a machine that is busy it takes a while.
READY_SECONDS = 60.0
_HAND_OVER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Launcher:
    """How a worker is started: a fresh interpreter, that shares a listening socket alone.

    The command is given the descriptors of its control socket and of that listening socket.
    """

    command: Sequence[str]
    environ: Mapping[str, str]
    spec: WorkerSpec

    async def launch(self, number: int, listener: socket.socket) -> "Worker":
        """Start the worker of this number."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                str(theirs.fileno()),
                str(listener.fileno()),
                pass_fds=(theirs.fileno(), listener.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                env=dict(self.environ),
                # A terminal's Ctrl-C is for the supervisor, which passes it on.
                start_new_session=True,
            )
        finally:
            theirs.close()
        control = await Control.open(ours)
        control.send_spec(dataclasses.replace(self.spec, number=number))
        return Worker(number, process, control)


class Worker:
    """A process that serves clients on one of the listening sockets."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, control: Control) -> None:
        self.number = number
        self._process = process
        self._control = control

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait_ready(self) -> None:
        """Wait until it serves clients; raises what keeps it from that, and it is ended."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                heard = await self._control.receive()
        except TimeoutError:
            await self.kill()
            raise WorkerFailed(f"worker {self.number} did not become ready", 1) from None
        if heard is None:
            code = await self.wait_ended()
            raise WorkerFailed(f"worker {self.number} ended with {code} while starting", 1)
        word, body = heard
        if word is MessageKind.FAILED:
            await self.wait_ended()
            raise WorkerFailed(body["message"], body["code"])

    def start_feed(self) -> None:
        """Let it run the feed."""
        self._control.send(MessageKind.FEED)

    async def hand_over(self) -> None:
        """Let it take in nobody else and end its feed; its clients it then drains, and exits."""
        self._control.write_eof()
        try:
            async with asyncio.timeout(_HAND_OVER_SECONDS):
                while (heard := await self._control.receive()) is not None:
                    if heard[0] is MessageKind.HANDED_OVER:
                        return
        except TimeoutError:
            logger.error("a worker does not hand over", extra={"worker": self.number})
            await self.kill()

    def send_signal(self, signum: signal.Signals) -> None:
        """Pass a signal on; to one that has ended it is nothing."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)

    async def kill(self) -> None:
        """End it now."""
        self.send_signal(signal.SIGKILL)
        await self.wait_ended()

    async def wait_ended(self) -> int:
        """Wait until it has ended; with what."""
        code = await self._process.wait()
        self._control.close()
        return code
