"""Starts peers and load as processes of their own, on a core each, and talks to them in lines."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = 0, 1


class Worker:
    """A process that answers each line with a line of JSON."""

    def __init__(self, command: list[str], core: int) -> None:
        cores = os.sched_getaffinity(0)
        pin = {core} if core in cores and len(cores) > 1 else cores
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=HERE.parent,
            text=True,
            bufsize=1,
            preexec_fn=lambda: os.sched_setaffinity(0, pin),
        )

    def ask(self, line: str) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.tell(line)
        return self.answer()

    def tell(self, line: str) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return dict(json.loads(line))

    def stop(self) -> None:
        """End the process."""
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
        ready = self.answer()
        self.port = int(ready["port"])
        self.token = str(ready.get("token", ""))

    def load(self) -> Worker:
        """Clients for this server."""
        command = [sys.executable, "-m", "benchmarks.load", "--port", str(self.port)]
        return Worker([*command, "--token", self.token], LOAD_CORE)


PEERS = {
    "floorcast": [sys.executable, "-m", "benchmarks.peers.floor"],
    "python-socketio": [sys.executable, "-m", "benchmarks.peers.plain"],
    "node": ["node", "--expose-gc", str(HERE / "peers" / "node" / "server.js")],
}


def available(with_node: bool) -> list[str]:
    """The peers that can run here; Node's packages are installed where they are missing."""
    names = ["floorcast", "python-socketio"]
    if with_node:
        folder = HERE / "peers" / "node"
        if not (folder / "node_modules").exists():
            subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True
            )
        names.append("node")
    return names


def report(name: str, rows: list[dict[str, Any]]) -> None:
    """Print a table and write the same as JSON."""
    columns = list(rows[0])
    cells = [[_text(row[column]) for column in columns] for row in rows]
    widths = [
        max(map(len, (column, *(row[i] for row in cells)))) for i, column in enumerate(columns)
    ]
    for line in (columns, *cells):
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(rows, indent=1))


def _text(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
