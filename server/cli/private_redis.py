"""Runs a private redis-server for the demo: no persistence, no port, ends with its parent."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from server.access import ConfigurationError

_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def private_redis() -> Iterator[str]:
    """Run a redis-server until the block ends; yields the URL of its socket.

    Raises `ConfigurationError` if none is installed or it does not start.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise ConfigurationError(
            "server.workers: a demo with more than 1 starts a private redis-server, and none is "
            "installed; install it, or set broker.url"
        )
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def end_with_parent() -> None:
        # Linux kills it even if the parent is killed.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    with tempfile.TemporaryDirectory(prefix="floorcast-") as folder:
        path = Path(folder) / "redis.sock"
        process = subprocess.Popen(  # noqa: S603 - its path is not from outside
            [
                *(program, "--port", "0", "--unixsocket", path, "--unixsocketperm", "700"),
                *("--save", "", "--appendonly", "no", "--dir", folder),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Ctrl-C goes to the supervisor only: the workers use Redis until they end.
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        try:
            _wait_for(path, process)
            yield f"unix://{path}"
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(path: Path, process: "subprocess.Popen[bytes]") -> None:
    give_up_at = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < give_up_at:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_START_SECONDS)
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            if client.recv(16) == b"+PONG\r\n":
                return
        time.sleep(0.02)
    raise ConfigurationError("server.workers: the private redis-server of the demo did not start")
