"""Compare memory and CPU per connection: 5,000 idle subscribed connections on one process."""

import time
from typing import Any

from benchmarks.goals import at_most, exit_code
from benchmarks.processes import Peer, available, load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of, run_rounds

# The goals apply to this size; smaller runs are for trials.
CLIENTS = 5000
GOAL_KB, GOAL_CPU_X_NODE = 7.0, 0.75


def measure(name: str, clients: int) -> Figures:
    """Run one round with a fresh server."""
    with Peer(name) as peer, peer.load() as load:
        # The first connections pay for one-time imports and caches.
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


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(
        available(not arguments.no_node),
        rounds_of(arguments),
        lambda name: measure(name, arguments.clients),
    )
    middle = medians(runs)
    plain, ours, node = middle["python-socketio"], middle["floorcast"], middle.get("node")
    rows: list[dict[str, Any]] = [
        {
            "server": name,
            "KB a connection": each["kb"],
            "x python-socketio's memory": each["kb"] / plain["kb"],
            "CPU ms to connect and subscribe": each["cpu_ms"],
            "x python-socketio's CPU": each["cpu_ms"] / plain["cpu_ms"],
            "x node's CPU": each["cpu_ms"] / node["cpu_ms"] if node else None,
            "connects/s": each["per_second"],
            "load's CPU share": each["load_share"],
        }
        for name, each in middle.items()
    ]
    verdicts = [at_most("P4", "KB a connection", ours["kb"], GOAL_KB)]
    if node:
        ratio = ours["cpu_ms"] / node["cpu_ms"]
        verdicts.append(at_most("P5", "CPU to connect x node's", ratio, GOAL_CPU_X_NODE))
    report("idle", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
