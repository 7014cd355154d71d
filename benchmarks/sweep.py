"""Compare one hot room of 1,000 clients: which rates each server sustains, and at which latency.

Rates rise until two in a row are not sustained: the 99th percentile is above 100 ms, a message is
missing or was merged into a newer one, or the publisher, which is in the server's process, does
not keep its schedule. Latency counts from the moment when a message was due. Every client is a user
of its own; every message of every client is counted, and the order is checked.
"""

import time
from functools import partial
from typing import Any

from benchmarks.audience import Audience
from benchmarks.goals import Verdict, at_least, at_most, exit_code
from benchmarks.processes import Peer, available, load_average, report
from benchmarks.rounds import Figures, argument_parser, rounds_of

CLIENTS, SECONDS, TIMED_EVERY = 1000, 3, 20
RATES = (10, 50, 100, 200, 500, 1000, 2000, 3000, 4000, 6000, 8000, 10_000, 12_000, 16_000)
MAX_P99_MS, MIN_PUBLISHED, DRAIN_SECONDS = 100.0, 0.99, 3
_MAX_MISSED = 2
GOAL_RATE, GOAL_X_UWS = 10_000, 3.0
LOW_RATES, GOAL_P50_X_UWS = (50, 100, 200), 1.3
GOAL_P99_X_NODE, GOAL_P99_X_UWS = 0.6, 0.9


def sweep(name: str, rates: tuple[int, ...], clients: int, seconds: int) -> dict[int, Figures]:
    """The figures of the rates until two in a row are not sustained, with a fresh server.

    Two, because a disturbance from outside must not end a sweep.
    """
    audience = partial(Audience, each=1, symbols=1, timed_every=TIMED_EVERY, one_room=True)
    figures: dict[int, Figures] = {}
    with Peer(name) as peer, audience(peer, clients) as load:
        load.open()
        # Both sides warm up.
        measure(peer, load, rates[0], 1)
        missed = 0
        for rate in rates:
            figures[rate] = measure(peer, load, rate, seconds)
            missed = 0 if figures[rate]["sustained"] else missed + 1
            if missed == _MAX_MISSED:
                break
    return figures


def measure(peer: Peer, load: Audience, rate: int, seconds: int) -> Figures:
    """Publish at one rate."""
    load_before = load.record()
    batch_ms = max(1, 1000 // rate)
    schedule = peer.ask(f"pace {rate} {seconds} 1 {batch_ms}")
    figures = load.drain(schedule["published"], DRAIN_SECONDS)
    stats = peer.ask("stats")
    elapsed = max(seconds, figures["at"] - schedule["began"])
    due = rate * batch_ms // 1000 * (seconds * 1000 // batch_ms)
    p99_ms = figures["p99_ms"] or float("inf")
    return {
        "p50_ms": figures["p50_ms"] or float("inf"),
        "p99_ms": p99_ms,
        "max_ms": figures["max_ms"] or float("inf"),
        "published": schedule["published"] / due,
        "merged": figures["merged"],
        "wrong": figures["wrong"],
        "disordered": figures["disordered"],
        "cpu_us": (stats["cpu"] - schedule["cpu_before"]) / max(1, figures["received"]) * 1e6,
        "server_share": (stats["cpu"] - schedule["cpu_before"]) / elapsed,
        "load_share": (figures["cpu"] - load_before) / elapsed,
        "sustained": float(
            p99_ms <= MAX_P99_MS
            and schedule["published"] >= MIN_PUBLISHED * due
            and not figures["wrong"] + figures["lost"] + figures["disordered"] + figures["merged"]
        ),
    }


def median_of(sweeps: list[dict[int, Figures]], rate: int) -> Figures | None:
    """The medians of one rate; None if a round did not reach it."""
    reached = [each[rate] for each in sweeps if rate in each]
    if len(reached) < len(sweeps):
        return None
    return {key: sorted(each[key] for each in reached)[len(reached) // 2] for key in reached[0]}


def sustained(sweeps: list[dict[int, Figures]]) -> int:
    """The highest rate that the median round sustains; 0 if none."""
    highest = [
        max((rate for rate, each in rates.items() if each["sustained"]), default=0)
        for rates in sweeps
    ]
    return sorted(highest)[len(highest) // 2]


def judge(runs: dict[str, list[dict[int, Figures]]]) -> list[Verdict]:
    """The goals P1, P1b and P2, as far as their peers were measured."""
    rates = {name: sustained(sweeps) for name, sweeps in runs.items()}
    verdicts = [at_least("P1", "messages/s sustained", rates["floorcast"], GOAL_RATE)]
    if rates.get("uWebSockets"):
        times = rates["floorcast"] / rates["uWebSockets"]
        verdicts.append(at_least("P1", "x uWebSockets' rate", times, GOAL_X_UWS))

    def ratio(key: str, rate: int, other: str) -> float | None:
        ours = median_of(runs["floorcast"], rate)
        theirs = median_of(runs.get(other, []), rate) if runs.get(other) else None
        return None if ours is None or theirs is None else ours[key] / theirs[key]

    for number, key, rate, other, bound in (
        *(("P1b", "p50_ms", rate, "uWebSockets", GOAL_P50_X_UWS) for rate in LOW_RATES),
        ("P2", "p99_ms", 10, "node", GOAL_P99_X_NODE),
        ("P2", "p99_ms", 10, "uWebSockets", GOAL_P99_X_UWS),
    ):
        value = ratio(key, rate, other)
        if value is not None:
            what = f"{key[:3]} at {rate}/s x {other}'s"
            verdicts.append(at_most(number, what, value, bound))
    return verdicts


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--rates", type=int, nargs="+", default=RATES)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    names = available(not arguments.no_node, with_uws=True)
    runs: dict[str, list[dict[int, Figures]]] = {name: [] for name in names}
    for _ in range(rounds_of(arguments)):
        for name, sweeps in runs.items():
            rates = tuple(arguments.rates)
            sweeps.append(sweep(name, rates, arguments.clients, arguments.seconds))
    rows: list[dict[str, Any]] = []
    for name, sweeps in runs.items():
        for rate in arguments.rates:
            figures = median_of(sweeps, rate)
            if figures is not None:
                rows.append(
                    {
                        "server": name,
                        "messages/s": rate,
                        "p50 ms": figures["p50_ms"],
                        "p99 ms": figures["p99_ms"],
                        "max ms": figures["max_ms"],
                        "published of due": figures["published"],
                        "clients with a wrong count": figures["wrong"],
                        "merged": figures["merged"],
                        "sustained": "yes" if figures["sustained"] else "no",
                        "CPU us/delivery": figures["cpu_us"],
                        "server's CPU share": figures["server_share"],
                        "load's CPU share": figures["load_share"],
                    }
                )
    verdicts = judge(runs)
    report("sweep", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
