"""Measure the cost of a delivery with one worker and with two, for 1,000 clients over Redis.

Two workers with a core each deliver 2 x c1 / c2 times as much as one, where c is the CPU time of a
delivery over all workers. The goal is about that factor, not about deliveries per second: two cores
are not enough for two workers, Redis, the publisher and the clients. A worker joins messages by its
load, and one alone has more. So bursts of 50 messages are published at once, which join into one
write: both are measured at the same depth.
"""

import sys
import time
from typing import Any

from benchmarks.goals import at_least, exit_code
from benchmarks.processes import Worker, load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of, run_rounds
from benchmarks.served import ServerProcess, token
from benchmarks.symbols import symbol
from server.cli.private_redis import private_redis

CLIENTS, RATE, BURST_MS, SECONDS, GOAL = 1000, 1000, 50, 5, 1.7
COUNTS = {"one worker": 1, "two workers": 2}
_ANY_CORE = -1


def measure(name: str, clients: int, seconds: int) -> Figures:
    """Run one round with a fresh server, a fresh Redis, and a publisher without clients."""
    with private_redis() as redis, ServerProcess(workers=COUNTS[name], broker=redis) as served:
        publisher = [sys.executable, "-m", "benchmarks.peers.floorcast", "--broker", redis]
        publisher.append("--concurrent")
        load = [sys.executable, "-m", "benchmarks.load", "--port", str(served.port)]
        with (
            Worker(publisher, _ANY_CORE) as publishing,
            Worker(
                [*load, "--token", token(), "--topics", f"PRICE:{symbol(0)}"], _ANY_CORE
            ) as listening,
        ):
            publishing.read_reply()
            listening.ask(f"open {clients} 64")
            # The first round warms up all sides and does not count.
            for counted in (1, seconds):
                before = served.cpu_seconds()
                load_before = listening.ask(f"expect {RATE * counted}")["cpu"]
                paced = publishing.ask(f"pace {RATE} {counted} 1 {BURST_MS}")
                # A publisher that is late skips the rest of its schedule.
                done = listening.ask(f"finished {paced['published']}")
                used = [
                    after - each for after, each in zip(served.cpu_seconds(), before, strict=True)
                ]
    deliveries = clients * paced["published"]
    return {
        "cpu_us": sum(used) / deliveries * 1e6,
        "busiest_us": max(used) / deliveries * 1e6,
        "load_share": (done["cpu"] - load_before) / (done["at"] - paced["began"]),
    }


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(
        COUNTS,
        rounds_of(arguments),
        lambda name: measure(name, arguments.clients, arguments.seconds),
    )
    middle = medians(runs)
    alone = middle["one worker"]["cpu_us"]
    rows: list[dict[str, Any]] = [
        {
            "": name,
            "CPU us/delivery": each["cpu_us"],
            "of that, the busiest worker": each["busiest_us"],
            "x one worker, a core each": COUNTS[name] * alone / each["cpu_us"],
            "load's CPU share": each["load_share"],
        }
        for name, each in middle.items()
    ]
    times = rows[1]["x one worker, a core each"]
    verdicts = [at_least("P8", "two workers x one, for the same CPU a core", times, GOAL)]
    report("workers", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
