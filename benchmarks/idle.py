"""5,000 idle subscribed connections on one process: memory and CPU for each, side by side."""

import argparse
import statistics
from typing import Any

from benchmarks.processes import Peer, available, report


def measure(name: str, clients: int) -> dict[str, float]:
    """One round with a fresh server."""
    peer = Peer(name)
    load = peer.load()
    try:
        # The first connections pay for what is imported and cached once.
        load.ask("open 50 16")
        before = peer.ask("stats")
        opened = load.ask(f"open {clients} 64")
        after = peer.ask("stats")
        return {
            "kb": (after["rss"] - before["rss"]) / clients / 1024,
            "cpu_ms": (after["cpu"] - before["cpu"]) / clients * 1000,
            "per_second": clients / opened["seconds"],
        }
    finally:
        load.stop()
        peer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-node", action="store_true")
    arguments = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(arguments.rounds):
        for name in available(not arguments.no_node):
            runs.setdefault(name, []).append(measure(name, arguments.clients))
    middle = {
        name: {key: statistics.median(run[key] for run in each) for key in each[0]}
        for name, each in runs.items()
    }
    plain = middle["python-socketio"]
    rows: list[dict[str, Any]] = [
        {
            "server": name,
            "KB a connection": each["kb"],
            "x python-socketio's memory": each["kb"] / plain["kb"],
            "CPU ms to connect and subscribe": each["cpu_ms"],
            "x python-socketio's CPU": each["cpu_ms"] / plain["cpu_ms"],
            "connects/s": each["per_second"],
        }
        for name, each in middle.items()
    ]
    report("idle", rows)


if __name__ == "__main__":
    main()
