"""One room, 1,000 clients, 200 messages flat out: deliveries a second, side by side."""

import argparse
import statistics
from typing import Any

from benchmarks.processes import Peer, available, report


def measure(name: str, clients: int, messages: int, mode: str) -> dict[str, float]:
    """One round with a fresh server and fresh clients."""
    peer = Peer(name)
    load = peer.load()
    try:
        load.ask(f"open {clients} 64")
        # A round that does not count warms both sides up.
        for counted in (messages // 4, messages):
            load_before = load.ask(f"expect {counted}")["cpu"]
            peer.tell(f"publish {counted} {mode}")
            load.tell("finished")
            done = load.answer()
            began = peer.answer()
            stats = peer.ask("stats")
        seconds = done["at"] - began["began"]
        return {
            "per_second": clients * messages / seconds,
            "server_cpu": stats["cpu"] - began["cpu_before"],
            "load_share": (done["cpu"] - load_before) / seconds,
        }
    finally:
        load.stop()
        peer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-node", action="store_true")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for mode in ("flat", "turn"):
        runs: dict[str, list[dict[str, float]]] = {}
        # Interleaved, so that a slow moment of the machine hits everybody.
        for _ in range(arguments.rounds):
            for name in available(not arguments.no_node):
                runs.setdefault(name, []).append(
                    measure(name, arguments.clients, arguments.messages, mode)
                )
        rates = {
            name: statistics.median(run["per_second"] for run in each)
            for name, each in runs.items()
        }
        for name, each in runs.items():
            rows.append(
                {
                    "publishing": "flat out" if mode == "flat" else "a loop turn each",
                    "server": name,
                    "deliveries/s": rates[name],
                    "x python-socketio": rates[name] / rates["python-socketio"],
                    "x node": rates[name] / rates["node"] if "node" in rates else 0.0,
                    "CPU us/delivery": statistics.median(
                        run["server_cpu"] / arguments.clients / arguments.messages * 1e6
                        for run in each
                    ),
                    "load's CPU share": statistics.median(run["load_share"] for run in each),
                }
            )
    report("hot_room", rows)


if __name__ == "__main__":
    main()
