"""Compare session sends per second: 100 clients that send, wait for the ack and send again.

Each client is alone in its session and also receives its own message. Floorcast validates, numbers
and stores each message; the peers only forward it.
"""

import time
from typing import Any

from benchmarks.goals import at_most, exit_code
from benchmarks.processes import Peer, available, load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of, run_rounds

# The goal applies to this size; smaller runs are for trials.
CLIENTS, SECONDS, GOAL_CPU_X_NODE = 100, 5.0, 1.0
WARM_SECONDS = 1.0
# Makes the sent object about 100 bytes long.
TEXT_BYTES = 60
# Above this CPU share the load is the bottleneck, and the rate a lower bound for the server.
BUSY = 0.95


def measure(name: str, clients: int, seconds: float, text_bytes: int) -> Figures:
    """Run one round with a fresh server and fresh clients."""
    flag = f"--text-bytes={text_bytes}"
    with Peer(name) as peer, peer.load(flag, module="benchmarks.talk_load") as load:
        load.ask(f"open {clients} 64")
        # The first round warms up both sides and does not count.
        load.ask(f"talk {WARM_SECONDS}")
        before = peer.ask("stats")
        talked = load.ask(f"talk {seconds}")
        after = peer.ask("stats")
    server_cpu = after["cpu"] - before["cpu_collected"]
    elapsed, acks = talked["seconds"], talked["acks"]
    return {
        "per_second": acks / elapsed,
        "p50_ms": talked["p50_ms"],
        "p99_ms": talked["p99_ms"],
        "cpu_us": server_cpu / acks * 1e6,
        "missing": acks - talked["heard"],
        "server_share": server_cpu / elapsed,
        "load_share": talked["cpu"] / elapsed,
    }


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--text-bytes", type=int, default=TEXT_BYTES)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(
        available(not arguments.no_node),
        rounds_of(arguments),
        lambda name: measure(name, arguments.clients, arguments.seconds, arguments.text_bytes),
    )
    middle = medians(runs)
    rates = {name: each["per_second"] for name, each in middle.items()}
    rows: list[dict[str, Any]] = [
        {
            "server": name,
            "sends/s": each["per_second"],
            "x python-socketio": rates[name] / rates["python-socketio"],
            "x node": rates[name] / rates["node"] if "node" in rates else None,
            "p50 ms": each["p50_ms"],
            "p99 ms": each["p99_ms"],
            "CPU us/send": each["cpu_us"],
            "missing": each["missing"],
            "server's CPU share": each["server_share"],
            "load's CPU share": each["load_share"],
        }
        for name, each in middle.items()
    ]
    verdicts = [at_most("P6", "messages missing", middle["floorcast"]["missing"], 0)]
    if "node" in middle:
        ratio = middle["floorcast"]["cpu_us"] / middle["node"]["cpu_us"]
        verdicts.append(at_most("P6", "CPU a send x node's", ratio, GOAL_CPU_X_NODE))
    report("talk", rows, runs, load_before, time.monotonic() - began, verdicts)
    for name, each in middle.items():
        if each["load_share"] >= BUSY:
            print(f"note: the load was the bottleneck with {name}; it can do more than that")
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
