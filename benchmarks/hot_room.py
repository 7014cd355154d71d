"""Compare deliveries per second: one room, 1,000 clients, 200 messages without a pause."""

import time
from functools import partial
from typing import Any

from benchmarks.processes import Peer, available, load_average, report
from benchmarks.rounds import Figures, argument_parser, check_at_least, medians, run_rounds

# What the publisher does between two messages; messages are joined only without a loop turn.
MODES = {"yes": {"flat": "flat out"}, "no": {"turn": "a loop turn each"}}
MODES["both"] = MODES["yes"] | MODES["no"]
# The goal applies to this size; smaller runs are for trials.
CLIENTS, MESSAGES, GOAL = 1000, 200, 8.0


def measure(name: str, clients: int, messages: int, mode: str) -> Figures:
    """Run one round with a fresh server and fresh clients."""
    with Peer(name) as peer, peer.load() as load:
        load.ask(f"open {clients} 64")
        # The first round warms up both sides and does not count.
        for counted in (max(1, messages // 10), messages):
            load_before = load.ask(f"expect {counted}")["cpu"]
            peer.send(f"publish {counted} {mode}")
            load.send("finished")
            done = load.read_reply()
            began = peer.read_reply()
            stats = peer.ask("stats")
    seconds = done["at"] - began["began"]
    server_cpu = stats["cpu"] - began["cpu_before"]
    return {
        "per_second": clients * messages / seconds,
        "cpu_us": server_cpu / clients / messages * 1e6,
        "server_share": server_cpu / seconds,
        "load_share": (done["cpu"] - load_before) / seconds,
    }


def compare(publishing: str, runs: dict[str, list[Figures]]) -> list[dict[str, Any]]:
    """A row for each server, from the medians of its runs."""
    middle = medians(runs)
    rates = {name: each["per_second"] for name, each in middle.items()}
    return [
        {
            "publishing": publishing,
            "server": name,
            "deliveries/s": each["per_second"],
            "x python-socketio": rates[name] / rates["python-socketio"],
            "x node": rates[name] / rates["node"] if "node" in rates else None,
            "CPU us/delivery": each["cpu_us"],
            "server's CPU share": each["server_share"],
            "load's CPU share": each["load_share"],
        }
        for name, each in middle.items()
    ]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--joined", choices=MODES, default="both")
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    names = available(not arguments.no_node)
    rows: list[dict[str, Any]] = []
    runs: dict[str, dict[str, list[Figures]]] = {}
    for mode, publishing in MODES[arguments.joined].items():
        measure_one = partial(
            measure, clients=arguments.clients, messages=arguments.messages, mode=mode
        )
        each = run_rounds(names, arguments.rounds, measure_one)
        rows += compare(publishing, each)
        runs[publishing] = each
    report("hot_room", rows, runs, load_before, time.monotonic() - began)
    if arguments.clients < CLIENTS or arguments.messages < MESSAGES:
        return
    for row in rows:
        if row["server"] == "floorcast":
            check_at_least(
                f"{row['publishing']}, x python-socketio", row["x python-socketio"], GOAL
            )


if __name__ == "__main__":
    main()
