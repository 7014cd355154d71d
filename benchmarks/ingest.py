"""Compare `publish` of one publisher: batches of 1, 10 and 100 prices, 32 requests at a time.

Nobody subscribes. Floorcast validates, numbers and stores each message; Node only routes it.
"""

import time
from typing import Any

from benchmarks.goals import at_least, exit_code
from benchmarks.processes import Peer, available, load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of, run_rounds

# Messages a second that each size of a batch must reach.
GOALS = {1: 45_000, 10: 160_000, 100: 200_000}
SECONDS, WARM_SECONDS = 4.0, 1.0


def measure(name: str, batch: int, seconds: float) -> Figures:
    """Run one round with a fresh server."""
    flags = (f"--batch={batch}",)
    with Peer(name) as peer, peer.load(*flags, module="benchmarks.ingest_load") as load:
        load.ask("open 1 1")
        load.ask(f"publish {WARM_SECONDS}")
        before = peer.ask("stats")
        done = load.ask(f"publish {seconds}")
        after = peer.ask("stats")
    cpu = after["cpu"] - before["cpu_collected"]
    return {
        "per_second": done["messages"] / done["seconds"],
        "cpu_us": cpu / done["messages"] * 1e6,
        "refused": done["refused"],
        "server_share": cpu / done["seconds"],
        "load_share": done["cpu"] / done["seconds"],
    }


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    peers = [each for each in available(not arguments.no_node) if each != "python-socketio"]
    cases = {f"{peer}, {batch}": (peer, batch) for batch in GOALS for peer in peers}
    runs = run_rounds(
        cases, rounds_of(arguments), lambda case: measure(*cases[case], arguments.seconds)
    )
    middle = medians(runs)
    rows: list[dict[str, Any]] = [
        {
            "server, batch": case,
            "messages/s": each["per_second"],
            "CPU us/message": each["cpu_us"],
            "refused": each["refused"],
            "server's CPU share": each["server_share"],
            "load's CPU share": each["load_share"],
        }
        for case, each in middle.items()
    ]
    verdicts = [
        at_least(
            "P11", f"messages/s, batch {batch}", middle[f"floorcast, {batch}"]["per_second"], goal
        )
        for batch, goal in GOALS.items()
    ]
    report("ingest", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
