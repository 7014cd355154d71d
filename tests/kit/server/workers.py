"""Run `floorcast serve` as a process with one or several workers."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from client_sdk.contract import Scope
from server.access import mint
from server.server import SystemClock
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.demo import environ_without_settings
from tests.kit.server.in_process import ALL_SCOPES, SECRET

ROOT = Path(__file__).parent.parent.parent.parent


@dataclass(slots=True)
class Workers:
    """The supervisor's process, its output and its log."""

    process: "subprocess.Popen[str]"
    url: str = ""
    printed: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def pids(self) -> set[int]:
        """The process ids of the workers."""
        pid = self.process.pid
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return {int(each) for task in tasks for each in task.read_text().split()}

    def client_ports(self, pid: int) -> set[int]:
        """The ports of the clients whose connections a worker has accepted."""
        files = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
        sockets = map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        return {
            int(remote.rpartition(":")[2], 16)
            for _, local, remote, *_, inode in (each[:10] for each in sockets)
            if f"socket:[{inode}]" in files and int(local.rpartition(":")[2], 16) == self.port
        }

    def until_logged(self, text: str, times: int = 1) -> None:
        """Wait until `times` lines of the log contain a text."""
        ends_at = time.monotonic() + MAX_WAIT_SECONDS
        while self.count_logged(text) < times:
            assert time.monotonic() < ends_at, self.logged
            time.sleep(0.01)

    def count_logged(self, text: str) -> int:
        """The number of log lines that contain a text."""
        return sum(text in line for line in self.logged)

    @staticmethod
    def token(user: str = "ann", scopes: Iterable[Scope] = ALL_SCOPES) -> str:
        """A valid token."""
        return mint(SECRET, subject=user, scopes=scopes, clock=SystemClock(), ttl_seconds=3600)


@contextlib.contextmanager
def workers(
    count: int,
    *flags: str,
    environ: Mapping[str, str] | None = None,
    checkout: Path | None = None,
    folder: Path | None = None,
) -> Iterator[Workers]:
    """Run `count` workers on a free port until the block ends, from this or another checkout.

    `folder` is the working directory, the checkout if None. Without a `BROKER__URL` in the
    environment each worker has its own market.
    """
    shared = environ is not None and "FLOORCAST_BROKER__URL" in environ
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m"),
            "server.cli" if shared else "tests.kit.server.unshared",
            *("serve", "--port", "0", "--workers", str(count), *flags),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder or checkout or ROOT,
        env={
            **environ_without_settings(),
            "FLOORCAST_AUTH__SECRET": SECRET,
            "PYTHONPATH": str(checkout or ROOT),
            **(environ or {}),
        },
    )
    assert process.stdout is not None
    assert process.stderr is not None
    started = Workers(process)
    reading = threading.Thread(target=started.logged.extend, args=(process.stderr,))
    reading.start()
    try:
        for line in process.stdout:
            started.printed.append(line)
            if found := re.fullmatch(r"listening on (http://\S+)\n", line):
                started.url = found[1]
                break
        yield started
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(MAX_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reading.join(MAX_WAIT_SECONDS)
        process.stdout.close()
        process.stderr.close()
