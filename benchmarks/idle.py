"""Compare memory and CPU per connection: 5,000 idle subscribed connections on one process."""

import time
from typing import Any

from benchmarks.processes import Peer, available, load_average, report
from benchmarks.rounds import Figures, argument_parser, check_at_most, medians, run_rounds

# The goals apply to this size; smaller runs are for trials.
CLIENTS = 5000
GOAL_KB, GOAL_CPU = 24.0, 0.7


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


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(
        available(not arguments.no_node),
        arguments.rounds,
        lambda name: measure(name, arguments.clients),
    )
    middle = medians(runs)
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
    check_at_most("KB a connection", ours["kb"], GOAL_KB)
    check_at_most("x python-socketio's CPU", ours["cpu_ms"] / plain["cpu_ms"], GOAL_CPU)


if __name__ == "__main__":
    main()
