"""Measure one process with up to 50,000 connections: what each costs as their number grows.

Two shapes: a message 10 times a second to everybody, and a market in which each client has 20 of
500 symbols. Connections come from several loopback addresses. The number of descriptors that a
process may open bounds the crowd: raise `ulimit -Hn` for the full size.
"""

import time
from typing import Any

from benchmarks.audience import Audience
from benchmarks.goals import Verdict, at_most, exit_code
from benchmarks.processes import Peer, load_average, max_descriptors, report
from benchmarks.rounds import Figures, argument_parser

SIZES = (1_000, 5_000, 10_000, 20_000, 30_000, 40_000, 50_000)
# Compared with this size. The first one pays for one-time imports and caches.
BASE = 5_000
GOAL_KB_X, GOAL_CPU_X, GOAL_CONNECT_X = 1.1, 1.1, 1.1
SECONDS, DRAIN_SECONDS, TIMED_CLIENTS = 5, 10, 50
_SPARE_DESCRIPTORS = 1_000
# What each client has, of how many symbols, and the messages a second to all symbols.
SHAPES = {"all": (1, 1, 10), "market": (20, 500, 100)}


def sizes_of(wanted: tuple[int, ...]) -> list[int]:
    """The sizes that this machine allows; the largest of them if it is below the last one."""
    limit = max_descriptors() - _SPARE_DESCRIPTORS
    if wanted[-1] <= limit:
        return list(wanted)
    print(f"A process may open {max_descriptors()} files here: {limit} connections at most.")
    return [*(each for each in wanted if each < limit), limit]


def measure(shape: str, sizes: list[int], seconds: int) -> list[Figures]:
    """Grow one crowd; the figures at each size."""
    each, symbols, rate = SHAPES[shape]
    every = max(2, sizes[-1] // TIMED_CLIENTS)
    figures: list[Figures] = []
    with (
        Peer("floorcast") as peer,
        Audience(peer, sizes[-1], each=each, symbols=symbols, timed_every=every) as load,
    ):
        empty_rss = peer.ask("stats")["rss"]
        opened = 0
        for size in sizes:
            before, began = peer.ask("stats"), time.monotonic()
            load.open(size - opened)
            took = time.monotonic() - began
            after = peer.ask("stats")
            load.record()
            schedule = peer.ask(f"pace {rate} {seconds} {symbols} {1000 // rate}")
            received = load.drain(schedule["published"], DRAIN_SECONDS)
            cpu = peer.ask("stats")["cpu"] - schedule["cpu_before"]
            figures.append(
                {
                    "connections": size,
                    "kb": (after["rss"] - empty_rss) / size / 1024,
                    "connect_ms": (after["cpu"] - before["cpu_collected"]) / (size - opened) * 1e3,
                    "connects_per_second": (size - opened) / took,
                    "cpu_us": cpu / max(1, received["received"]) * 1e6,
                    "p50_ms": received["p50_ms"] or float("inf"),
                    "p99_ms": received["p99_ms"] or float("inf"),
                    "server_share": cpu / seconds,
                    "wrong": received["wrong"],
                }
            )
            opened = size
    return figures


def judge(runs: dict[str, list[Figures]]) -> list[Verdict]:
    """P14: the largest crowd against one of 5,000."""
    verdicts: list[Verdict] = []
    for shape, figures in runs.items():
        base = next((each for each in figures if each["connections"] >= BASE), figures[-1])
        last = figures[-1]
        verdicts += [
            at_most("P14", f"{shape}: {what} at {last['connections']:,.0f} x at 5,000", *values)
            for what, *values in (
                ("KB a connection", last["kb"] / base["kb"], GOAL_KB_X),
                ("CPU a delivery", last["cpu_us"] / base["cpu_us"], GOAL_CPU_X),
                ("CPU a connect", last["connect_ms"] / base["connect_ms"], GOAL_CONNECT_X),
            )
        ]
    largest = min(figures[-1]["connections"] for figures in runs.values())
    # At least, judged as its shortfall: the machine may not allow it.
    return [*verdicts, at_most("P14", "connections that are missing", SIZES[-1] - largest, 0)]


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--shape", choices=SHAPES, nargs="+", default=list(SHAPES))
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    sizes = sizes_of(tuple(arguments.sizes[:3] if arguments.quick else arguments.sizes))
    runs = {shape: measure(shape, sizes, arguments.seconds) for shape in arguments.shape}
    rows: list[dict[str, Any]] = [
        {
            "shape": shape,
            "connections": int(each["connections"]),
            "KB each": each["kb"],
            "CPU ms to connect": each["connect_ms"],
            "connects/s": each["connects_per_second"],
            "CPU us/delivery": each["cpu_us"],
            "p50 ms": each["p50_ms"],
            "p99 ms": each["p99_ms"],
            "server's CPU share": each["server_share"],
            "clients with a wrong count": each["wrong"],
        }
        for shape, figures in runs.items()
        for each in figures
    ]
    verdicts = judge(runs)
    report("crowd", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
