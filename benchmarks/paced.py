"""Compare latency: 10 messages per second to 1,000 clients of one room.

It counts from the publishing call until the bytes arrive at the client's socket, for every message
of every client.
"""

import time
from functools import partial
from typing import Any

from benchmarks.audience import Audience
from benchmarks.processes import Peer, available, load_average, report
from benchmarks.rounds import Figures, argument_parser, check_at_most, medians, run_rounds

# The goal applies to this size; smaller runs are for trials.
CLIENTS, RATE, SECONDS, GOAL = 1000, 10, 10, 0.5
DRAIN_SECONDS = 10


def measure(name: str, clients: int, seconds: int) -> Figures:
    """Run one round with a fresh server and fresh clients."""
    audience = partial(Audience, each=1, symbols=1, timed_every=1)
    with Peer(name) as peer, audience(peer, clients) as load:
        load.open()
        # The first round warms up both sides and does not count.
        for counted in (1, seconds):
            load_before = load.record()
            schedule = peer.ask(f"pace {RATE} {counted} 1 {1000 // RATE}")
            figures = load.drain(schedule["published"], DRAIN_SECONDS)
            stats = peer.ask("stats")
    elapsed = max(counted, figures["at"] - schedule["began"])
    if not figures["ages"]:
        raise RuntimeError(f"no message was received from {name}")
    return {
        "p50_ms": figures["p50_ms"],
        "p99_ms": figures["p99_ms"],
        "max_ms": figures["max_ms"],
        "missing": clients * RATE * seconds - figures["received"],
        "lost": figures["lost"],
        "server_share": (stats["cpu"] - schedule["cpu_before"]) / elapsed,
        "load_share": (figures["cpu"] - load_before) / elapsed,
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(
        available(not arguments.no_node),
        arguments.rounds,
        lambda name: measure(name, arguments.clients, arguments.seconds),
    )
    middle = medians(runs)
    node = middle.get("node")
    rows: list[dict[str, Any]] = [
        {
            "server": name,
            "p50 ms": each["p50_ms"],
            "p99 ms": each["p99_ms"],
            "max ms": each["max_ms"],
            "p50 x node": each["p50_ms"] / node["p50_ms"] if node else None,
            "p99 x node": each["p99_ms"] / node["p99_ms"] if node else None,
            "p99 x python-socketio": each["p99_ms"] / middle["python-socketio"]["p99_ms"],
            "missing": each["missing"],
            "lost clients": each["lost"],
            "server's CPU share": each["server_share"],
            "load's CPU share": each["load_share"],
        }
        for name, each in middle.items()
    ]
    report("paced", rows, runs, load_before, time.monotonic() - began)
    if node and arguments.clients >= CLIENTS and arguments.seconds >= SECONDS:
        check_at_most("p99 x node's", middle["floorcast"]["p99_ms"] / node["p99_ms"], GOAL)


if __name__ == "__main__":
    main()
