"""Measure what a delivery costs as the work grows: subscribers of a topic, and topics.

No goal is judged. `benchmarks.crowd` has the same for connections.
"""

import time
from typing import Any, NamedTuple

from benchmarks.audience import Audience
from benchmarks.processes import Peer, load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of

SECONDS, DRAIN_SECONDS, TIMED_CLIENTS = 3, 10, 50


class Load(NamedTuple):
    """Clients, the topics of each, all topics, and messages a second to all topics."""

    axis: str
    size: int
    clients: int
    each: int
    topics: int
    rate: int


# One topic with ever more subscribers, 20 messages a second. Then ever more topics, of which 1,000
# clients have five each: 50,000 deliveries a second, or 10,000 where each topic has one subscriber.
LOADS = (
    *(Load("subscribers", size, size, 1, 1, 20) for size in (100, 300, 1_000, 3_000, 10_000)),
    Load("topics", 1, 1_000, 1, 1, 50),
    Load("topics", 10, 1_000, 5, 10, 100),
    Load("topics", 100, 1_000, 5, 100, 1_000),
    Load("topics", 1_000, 1_000, 5, 1_000, 10_000),
    Load("topics", 5_000, 1_000, 5, 5_000, 10_000),
)


def measure(load: Load, seconds: int) -> Figures:
    """One round with a fresh server."""
    every = max(4, load.clients // TIMED_CLIENTS)
    with (
        Peer("floorcast") as peer,
        Audience(
            peer, load.clients, each=load.each, symbols=load.topics, timed_every=every
        ) as audience,
    ):
        audience.open()
        batch_ms = max(10, 1000 // load.rate)
        for counted in (1, seconds):
            audience.record()
            schedule = peer.ask(f"pace {load.rate} {counted} {load.topics} {batch_ms}")
            figures = audience.drain(schedule["published"], DRAIN_SECONDS)
            cpu = peer.ask("stats")["cpu"] - schedule["cpu_before"]
    return {
        "cpu_us": cpu / max(1, figures["received"]) * 1e6,
        "p50_ms": figures["p50_ms"] or float("inf"),
        "p99_ms": figures["p99_ms"] or float("inf"),
        "server_share": cpu / counted,
        "wrong": figures["wrong"],
    }


def main() -> int:
    arguments = argument_parser(__doc__).parse_args()
    load_before, began = load_average(), time.monotonic()
    seconds = 1 if arguments.quick else SECONDS
    runs: dict[str, list[Figures]] = {}
    for _ in range(rounds_of(arguments)):
        for load in LOADS:
            runs.setdefault(f"{load.axis} {load.size}", []).append(measure(load, seconds))
    rows: list[dict[str, Any]] = [
        {
            "grows": load.axis,
            "to": load.size,
            "deliveries/s": load.rate * load.clients * load.each // load.topics,
            "CPU us/delivery": each["cpu_us"],
            "p50 ms": each["p50_ms"],
            "p99 ms": each["p99_ms"],
            "server's CPU share": each["server_share"],
            "clients with a wrong count": each["wrong"],
        }
        for load, each in zip(LOADS, medians(runs).values(), strict=True)
    ]
    report("growth", rows, runs, load_before, time.monotonic() - began)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
