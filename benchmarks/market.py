"""Compare a market: 1,000 clients, each with 20 of 500 symbols, 5,000 updates per second.

Every symbol has 40 subscribers, and 50 updates are published every 10 ms: 200,000 deliveries per
second. The publisher stops when its time is over; a server that cannot keep up has a lower share
`of those due`. Lag counts from when a message was due and is measured by 50 of the clients.
"""

import time
from functools import partial
from typing import Any

from benchmarks.audience import Audience
from benchmarks.goals import at_most, exit_code
from benchmarks.processes import Peer, available, load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of, run_rounds

# The goals apply to this size; smaller runs are for trials.
CLIENTS, RATE, SECONDS = 1000, 5000, 5
EACH, SYMBOLS, BATCH_MS = 20, 500, 10
TIMED_EVERY = 20
GOAL_CPU_X_NODE, GOAL_MAX_MS, GOAL_P50_MS = 0.28, 50.0, 8.0
DRAIN_SECONDS = 10


def measure(name: str, clients: int, rate: int, seconds: int) -> Figures:
    """Run one round with a fresh server and fresh clients."""
    audience = partial(Audience, each=EACH, symbols=SYMBOLS, timed_every=TIMED_EVERY)
    with Peer(name) as peer, audience(peer, clients) as load:
        load.open()
        # The first round warms up both sides and does not count.
        for counted in (1, seconds):
            load_before = load.record()
            schedule = peer.ask(f"pace {rate} {counted} {SYMBOLS} {BATCH_MS}")
            figures = load.drain(schedule["published"], DRAIN_SECONDS)
            stats = peer.ask("stats")
    if not figures["ages"]:
        raise RuntimeError(f"no message was received from {name}")
    elapsed = max(counted, figures["at"] - schedule["began"])
    cpu = stats["cpu"] - schedule["cpu_before"]
    due = rate * seconds * clients * EACH / SYMBOLS
    return {
        "cpu_us": cpu / figures["received"] * 1e6,
        "per_second": figures["received"] / elapsed,
        "share_of_due": (figures["received"] + figures["merged"]) / due,
        "merged": figures["merged"],
        "wrong": figures["wrong"] + figures["disordered"],
        "p50_ms": figures["p50_ms"],
        "p99_ms": figures["p99_ms"],
        "max_ms": figures["max_ms"],
        "publisher_late_ms": schedule["late"] * 1000,
        "lost": figures["lost"],
        "server_share": cpu / elapsed,
        "load_share": (figures["cpu"] - load_before) / elapsed,
    }


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--rate", type=int, default=RATE, help="updates a second, in hundreds")
    parser.add_argument("--seconds", type=int, default=SECONDS)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(
        available(not arguments.no_node),
        rounds_of(arguments),
        lambda name: measure(name, arguments.clients, arguments.rate, arguments.seconds),
    )
    middle = medians(runs)
    node = middle.get("node")
    rows: list[dict[str, Any]] = [
        {
            "server": name,
            "CPU us/delivery": each["cpu_us"],
            "x node": each["cpu_us"] / node["cpu_us"] if node else None,
            "x python-socketio": each["cpu_us"] / middle["python-socketio"]["cpu_us"],
            "deliveries/s": each["per_second"],
            "of those due": each["share_of_due"],
            "merged": each["merged"],
            "lag p50 ms": each["p50_ms"],
            "p99 ms": each["p99_ms"],
            "max ms": each["max_ms"],
            "publisher late ms": each["publisher_late_ms"],
            "clients with a wrong count or order": each["wrong"],
            "lost clients": each["lost"],
            "server's CPU share": each["server_share"],
            "load's CPU share": each["load_share"],
        }
        for name, each in middle.items()
    ]
    ours = middle["floorcast"]
    verdicts = [
        at_most("P3", "ms that a client is behind", ours["max_ms"], GOAL_MAX_MS),
        at_most("P3", "p50 ms", ours["p50_ms"], GOAL_P50_MS),
        at_most("P3", "clients with a wrong count or order", ours["wrong"], 0),
    ]
    if node:
        ratio = ours["cpu_us"] / node["cpu_us"]
        verdicts.append(at_most("P3", "CPU a delivery x node's", ratio, GOAL_CPU_X_NODE))
    report("market", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
