"""Start peers and load as processes, each on its own core, and exchange lines with them."""

import importlib.util
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from benchmarks.goals import Verdict

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
SERVER_CORE, LOAD_CORE = 0, 1
PAGE_BYTES = resource.getpagesize()
# Longer than the load's own timeout, whose error says more.
REPLY_SECONDS = 180.0


def max_descriptors() -> int:
    """How many files and sockets a process may open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _prepare(cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    hard = max_descriptors()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Worker:
    """A process that replies to each line with a line of JSON."""

    def __init__(self, command: list[str], core: int) -> None:
        cores = os.sched_getaffinity(0)
        pin = {core} if core in cores and len(cores) > 1 else cores
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=FOLDER.parent,
            text=True,
            bufsize=1,
            preexec_fn=lambda: _prepare(pin),
        )

    def ask(self, line: str) -> dict[str, Any]:
        """Send a command and wait for its reply."""
        self.send(line)
        return self.read_reply()

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def read_reply(self) -> dict[str, Any]:
        """The next reply; kills the process if none comes in time, and raises RuntimeError."""
        assert self._process.stdout is not None
        watch = threading.Timer(REPLY_SECONDS, self._process.kill)
        watch.start()
        line = self._process.stdout.readline()
        watch.cancel()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return dict(json.loads(line))

    @property
    def rss_bytes(self) -> int:
        """The resident memory, read from the kernel because the process may be busy."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * PAGE_BYTES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class Peer(Worker):
    """A server under measurement."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(PEERS[name], SERVER_CORE)
        ready = self.read_reply()
        self.port = int(ready["port"])
        self.token = str(ready.get("token", ""))

    def load(self, *flags: str, module: str = "benchmarks.load") -> Worker:
        """Start clients for this server."""
        command = [sys.executable, "-m", module, "--port", str(self.port), "--token", self.token]
        return Worker([*command, *flags], LOAD_CORE)


PEERS = {
    "floorcast": [sys.executable, "-m", "benchmarks.peers.floorcast"],
    "python-socketio": [sys.executable, "-m", "benchmarks.peers.plain"],
    "blaster": [sys.executable, "-m", "benchmarks.peers.blaster"],
    "uWebSockets": [sys.executable, "-m", "benchmarks.peers.uws"],
    "node": ["node", "--expose-gc", str(FOLDER / "peers" / "node" / "server.js")],
}


def available(with_node: bool, *, with_uws: bool = False) -> list[str]:
    """The peers that can run here; installs missing Node packages."""
    names = ["floorcast", "python-socketio"]
    if with_uws:
        if importlib.util.find_spec("socketify") is None:
            print("socketify is not installed: the peer uWebSockets is skipped.")
        else:
            names.append("uWebSockets")
    if with_node and not (shutil.which("node") and shutil.which("npm")):
        print("Node is not installed: its peer is skipped.")
    elif with_node:
        folder = FOLDER / "peers" / "node"
        if not (folder / "node_modules").exists():
            subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True
            )
        names.append("node")
    return names


def load_average() -> float:
    """The busy cores of the last minute, read before a measurement to detect noise."""
    return os.getloadavg()[0]


def _busy_seconds() -> float:
    """The CPU time of all processes of this machine."""
    user, nice, system = Path("/proc/stat").read_text().split(maxsplit=4)[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """The CPU time of this benchmark and its ended processes."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


_BUSY_SECONDS_BEFORE = _busy_seconds() - _own_seconds()


def report(
    name: str,
    rows: list[dict[str, Any]],
    runs: dict[str, Any],
    load_before: float,
    seconds: float,
    verdicts: Sequence[Verdict] = (),
) -> None:
    """Print a table of medians and the verdicts; write them as JSON together with every run."""
    columns = list(rows[0])
    cells = [[_text(row[column]) for column in columns] for row in rows]
    widths = [
        max(map(len, (column, *(row[i] for row in cells)))) for i, column in enumerate(columns)
    ]
    for line in (columns, *cells):
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    cores = os.cpu_count()
    others = max(0.0, _busy_seconds() - _own_seconds() - _BUSY_SECONDS_BEFORE) / seconds
    noisy = " (the machine was not idle: expect noise)" if max(load_before, others) > 0.5 else ""
    print(
        f"{seconds:.0f} s, {cores} cores, load before {load_before:.2f}, "
        f"others took {others:.2f} cores meanwhile{noisy}"
    )
    body = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": cores,
        "load_before": load_before,
        "others_took": others,
        "seconds": seconds,
        "rows": rows,
        "verdicts": [verdict._asdict() for verdict in verdicts],
        "runs": runs,
    }
    for verdict in verdicts:
        print(verdict)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(body, indent=1))


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
