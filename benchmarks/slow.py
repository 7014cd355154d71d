"""Measure slow consumers: 100 of 1,000 clients stop reading for 20 s.

20 symbols get 100 updates per second each, published every 50 ms, and every client subscribes to 2:
200,000 deliveries per second, about half a core on each side. Updates are those of a rich ticker,
630 bytes, so a stopped client misses 2.5 MB. The connections have small buffers, as over a real
network; on plain loopback the kernel takes 4 MB per client before the server can notice, and even
here 1 MB if the server does not limit it. The kernel's memory is reported beside the server's; it
is that of the whole machine, so other processes disturb it.

Runs with and without the stop alternate. The others' latency is that of 100 of them, during the
stop. A client counts as fresh if within a second of reading again it receives for each of its
symbols an update at most a second old; a client that the server disconnected does not. The worst
age is that of the oldest latest update of any stopped client at the end of that second. The memory
of a stopped client is that by which the process grows more than without the stop.
"""

import time
from pathlib import Path
from typing import Any

from benchmarks.audience import Audience
from benchmarks.goals import at_least, at_most, exit_code
from benchmarks.processes import PAGE_BYTES, Peer, load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of, run_rounds

# The goals apply to this size; smaller runs are for trials.
CLIENTS, STOP_SECONDS = 1000, 20
EACH, SYMBOLS, RATE, BATCH_MS = 2, 20, 2000, 50
# The other fields of a rich ticker: daily volume, range and so on.
NOTE_BYTES = 400
# In each group of this size one client stops and one is timed.
GROUP = 10
LEAD_SECONDS, TAIL_SECONDS, SAMPLE_SECONDS = 2, 2, 0.25
GOAL_P99, GOAL_KB, GOAL_FRESH = 1.1, 64, 1.0
CALM, STOPPED = "no client stops", "10% stop"


def measure(kind: str, clients: int, stop_seconds: int) -> Figures:
    """Run one round with a fresh server and fresh clients."""
    stopping = clients // GROUP
    with (
        Peer("floorcast") as peer,
        Audience(
            peer,
            clients,
            each=EACH,
            symbols=SYMBOLS,
            timed_every=GROUP,
            far=True,
        ) as load,
    ):
        load.open()
        seconds = LEAD_SECONDS + stop_seconds + TAIL_SECONDS
        peer.send(f"pace {RATE} {seconds} {SYMBOLS} {BATCH_MS} {NOTE_BYTES}")
        # Warm up both sides and the kernel's buffers.
        time.sleep(LEAD_SECONDS)
        load_before, began = load.record(), time.monotonic()
        server_before, kernel_before = peer.rss_bytes, kernel_bytes()
        if kind == STOPPED:
            load.pause_reading(stopping)
        server_peak, kernel_peak = server_before, kernel_before
        while time.monotonic() < began + stop_seconds:
            time.sleep(SAMPLE_SECONDS)
            server_peak = max(server_peak, peer.rss_bytes)
            kernel_peak = max(kernel_peak, kernel_bytes())
        figures = load.figures()
        elapsed = time.monotonic() - began
        freshness = load.resume_reading() if kind == STOPPED else {}
        schedule = peer.read_reply()
        stats = peer.ask("stats")
    if not figures["ages"]:
        raise RuntimeError("no message was received")
    return {
        "p50_ms": figures["p50_ms"],
        "p99_ms": figures["p99_ms"],
        "max_ms": figures["max_ms"],
        "share_of_due": figures["ages"] / (figures["timed"] * EACH * RATE / SYMBOLS * elapsed),
        "merged": figures["merged"],
        "publisher_late_ms": schedule["late"] * 1000,
        "lost": figures["lost"],
        "server_kb": (server_peak - server_before) / stopping / 1024,
        "kernel_kb": (kernel_peak - kernel_before) / stopping / 1024,
        "server_share": (stats["cpu"] - schedule["cpu_before"]) / seconds,
        "load_share": (figures["cpu"] - load_before) / elapsed,
        **freshness,
    }


def kernel_bytes() -> int:
    """The kernel memory of all TCP connections of this machine."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * PAGE_BYTES
    return 0


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"at least {GROUP}")
    parser.add_argument("--stop-seconds", type=int, default=STOP_SECONDS)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(
        (CALM, STOPPED),
        rounds_of(arguments),
        lambda kind: measure(kind, arguments.clients, arguments.stop_seconds),
    )
    middle = medians(runs)
    calm, stopped = middle[CALM], middle[STOPPED]
    rows: list[dict[str, Any]] = [
        {
            "floorcast": kind,
            "others' p50 ms": each["p50_ms"],
            "p99 ms": each["p99_ms"],
            "max ms": each["max_ms"],
            "p99 x no stop": each["p99_ms"] / calm["p99_ms"],
            "of those due": each["share_of_due"],
            "merged": each["merged"],
            "publisher late ms": each["publisher_late_ms"],
            "others lost": each["lost"],
            "server grew, KB a stopped client": each["server_kb"],
            "kernel KB": each["kernel_kb"],
            "stopped": each.get("stopped"),
            "ended by the server": each.get("gone"),
            "fresh in 1 s": each.get("fresh"),
            "worst age at 1 s, ms": each.get("worst_age_ms"),
            "server's CPU share": each["server_share"],
            "load's CPU share": each["load_share"],
        }
        for kind, each in middle.items()
    ]
    fresh = stopped["fresh"] / stopped["stopped"]
    kilobytes = stopped["server_kb"] - calm["server_kb"]
    verdicts = [
        at_most("P7", "others' p99 x no stop", stopped["p99_ms"] / calm["p99_ms"], GOAL_P99),
        at_most("P7", "KB a stopped client", kilobytes, GOAL_KB),
        at_least("P7", "share that is fresh in 1 s", fresh, GOAL_FRESH),
    ]
    report("slow", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
