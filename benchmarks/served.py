"""Run `floorcast serve` under measurement, with all its processes and without limits."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from benchmarks.client_pool import SECRET
from benchmarks.processes import FOLDER
from client_sdk.contract import Scope
from server.access import mint
from server.server import SystemClock

UNLIMITED = {
    f"FLOORCAST_LIMITS__{name}": "0"
    for name in (
        "CONNECTIONS",
        "CONNECTIONS_PER_IP",
        "CONNECTIONS_PER_USER",
        "CONNECTS_PER_SECOND",
        "CONNECTS_PER_SECOND_PER_IP",
        "EVENTS_PER_SECOND",
    )
}
_TICKS = os.sysconf("SC_CLK_TCK")


def token() -> str:
    """A token that may read and publish."""
    return mint(
        SECRET,
        subject="load",
        scopes=[Scope.MARKET_READ, Scope.MARKET_PUBLISH],
        clock=SystemClock(),
        ttl_seconds=3600,
    )


class ServerProcess:
    """The server process and its workers, if it has any."""

    def __init__(
        self,
        *,
        port: int = 0,
        workers: int = 1,
        broker: str,
        core: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        cores = os.sched_getaffinity(0)
        pin = cores if core is None else {core}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "floorcast", "serve"),
                *("--port", str(port), "--workers", str(workers)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=FOLDER.parent,
            text=True,
            env={
                **os.environ,
                **UNLIMITED,
                "FLOORCAST_AUTH__SECRET": SECRET,
                "FLOORCAST_BROKER__URL": broker,
                **(environ or {}),
            },
            preexec_fn=lambda: os.sched_setaffinity(0, pin),
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"the server ended with {self._process.wait()}")
        self.port = int(line.rpartition(":")[2])
        self.ready_at = time.monotonic()

    def cpu_seconds(self) -> list[float]:
        """The CPU time of each process that serves clients."""
        return [_cpu_seconds(pid) for pid in self._children() or [self._process.pid]]

    def stop(self, signal_number: signal.Signals) -> float:
        """Send a signal and wait for the exit; return the seconds it took."""
        began = time.monotonic()
        self._process.send_signal(signal_number)
        self._process.wait()
        return time.monotonic() - began

    def _children(self) -> list[int]:
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return [int(each) for task in tasks for each in task.read_text().split()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.stop(signal.SIGINT)
        assert self._process.stdout is not None
        self._process.stdout.close()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
