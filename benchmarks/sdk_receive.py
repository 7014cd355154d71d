"""Compare the receive rate of the SDK, models included, with a plain `socketio.AsyncClient`.

A separate process writes prepared messages as fast as the client reads them: prices of 170 bytes,
and trades, of which the SDK yields every one and checks for gaps. Both clients run on asyncio's
own event loop.
"""

import time
from typing import Any

from benchmarks.goals import at_least, exit_code
from benchmarks.processes import Peer, load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of, run_rounds

# The goal applies to this size; smaller runs are for trials.
MESSAGES = 100_000
WARM_UP = 5_000
GOAL = 4.0

CASES = {
    "python-socketio, prices": ("python-socketio", "PRICE"),
    "SDK, prices": ("sdk-latest", "PRICE"),
    "python-socketio, trades": ("python-socketio", "TRADES"),
    "SDK, trades": ("sdk", "TRADES"),
}


def measure(name: str, messages: int) -> Figures:
    """Run one round with a fresh server and a fresh client."""
    receiver, stream = CASES[name]
    flags = ("--receiver", receiver, "--stream", stream)
    with Peer("blaster") as peer, peer.load(*flags, module="benchmarks.receivers") as load:
        load.read_reply()
        # The first round warms up both sides and does not count.
        for count in (WARM_UP, messages):
            before = load.ask(f"expect {count}")
            blast = peer.ask(f"blast {count}")
            ended = load.read_reply()
    elapsed = ended["at"] - blast["began"]
    return {
        "per_second": messages / elapsed,
        "cpu_us": (ended["cpu"] - before["cpu"]) / messages * 1e6,
    }


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(CASES, rounds_of(arguments), lambda name: measure(name, arguments.messages))
    middle = medians(runs)
    ratios = {
        name: each["per_second"]
        / middle[f"python-socketio, {name.partition(', ')[2]}"]["per_second"]
        for name, each in middle.items()
    }
    rows: list[dict[str, Any]] = [
        {
            "client": name,
            "messages/s": each["per_second"],
            "x python-socketio": ratios[name],
            "CPU us/message": each["cpu_us"],
        }
        for name, each in middle.items()
    ]
    verdicts = [
        at_least("P10", f"{name} x python-socketio", ratios[name], GOAL)
        for name in ("SDK, prices", "SDK, trades")
    ]
    report("sdk_receive", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
