"""5,000 idle subscribed connections on one process: memory and CPU for each, side by side."""

import argparse
import statistics
import time
from typing import Any

from benchmarks.processes import Peer, available, busy_cores, report

# Goals are about this many; a smaller run is for trying things out.
CLIENTS = 5000
GOAL_KB, GOAL_CPU = 24.0, 0.7


def measure(name: str, clients: int) -> dict[str, float]:
    """One round with a fresh server."""
    with Peer(name) as peer, peer.load() as load:
        # The first connections pay for what is imported and cached once.
        warm = load.ask("open 50 16")
        before = peer.ask("stats")
        opened = load.ask(f"open {clients} 64")
        after = peer.ask("stats")
    return {
        "kb": (after["rss"] - before["rss"]) / clients / 1024,
        "cpu_ms": (after["cpu"] - before["cpu_collected"]) / clients * 1000,
        "per_second": clients / opened["seconds"],
        "load_share": (opened["cpu"] - warm["cpu"]) / opened["seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-node", action="store_true")
    arguments = parser.parse_args()
    load_before, began = busy_cores(), time.monotonic()
    names = available(not arguments.no_node)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            runs[name].append(measure(name, arguments.clients))
    middle = {
        name: {key: statistics.median(run[key] for run in each) for key in each[0]}
        for name, each in runs.items()
    }
    plain, ours = middle["python-socketio"], middle["floorcast"]
    rows: list[dict[str, Any]] = [
        {
            "server": name,
            "KB a connection": each["kb"],
            "x python-socketio's memory": each["kb"] / plain["kb"],
            "CPU ms to connect and subscribe": each["cpu_ms"],
            "x python-socketio's CPU": each["cpu_ms"] / plain["cpu_ms"],
            "connects/s": each["per_second"],
            "load's CPU share": each["load_share"],
        }
        for name, each in middle.items()
    ]
    report("idle", rows, runs, load_before, time.monotonic() - began)
    if arguments.clients < CLIENTS:
        return
    for what, value, goal in (
        ("KB a connection", ours["kb"], GOAL_KB),
        ("x python-socketio's CPU", ours["cpu_ms"] / plain["cpu_ms"], GOAL_CPU),
    ):
        verdict = "met" if value <= goal else "MISSED"
        print(f"goal, {what}: {value:.2f} of at most {goal}: {verdict}")


if __name__ == "__main__":
    main()
