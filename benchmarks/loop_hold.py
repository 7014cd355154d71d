"""Measure how long one message to 10,000 clients holds the server's loop.

A task that only lets others go first measures the longest time between two of its turns.
"""

import asyncio
import sys
import time
from typing import Any

import uvloop

from benchmarks.client_pool import SECRET
from benchmarks.goals import at_most, exit_code
from benchmarks.peers.control import PRICE
from benchmarks.processes import Worker, load_average, report
from benchmarks.rounds import argument_parser, rounds_of
from benchmarks.served import UNLIMITED, token
from server.app import SERVER, create_app
from server.serving import open_listener, run_app
from server.settings import load_settings

CLIENTS, MESSAGES, GOAL_MS = 10_000, 5, 10.0
_PAUSE_SECONDS, _ANY_CORE = 0.5, -1


async def measure(clients: int) -> list[float]:
    """The longest hold of each message, in milliseconds."""
    environ = {**UNLIMITED, "FLOORCAST_AUTH__SECRET": SECRET}
    settings = load_settings(environ=environ, flags={"server.port": 0})
    app = create_app(settings)
    holds: list[float] = []
    async with run_app(app, settings, open_listener(settings)) as address:
        port = address.url.rpartition(":")[2]
        command = [sys.executable, "-m", "benchmarks.load", "--port", port, "--token", token()]
        with Worker(command, _ANY_CORE) as load:
            await asyncio.to_thread(load.ask, f"open {clients} 64")
            for _ in range(MESSAGES):
                await asyncio.sleep(_PAUSE_SECONDS)
                watch = asyncio.create_task(_longest_turn(_PAUSE_SECONDS))
                await asyncio.sleep(0)
                await app[SERVER].market.publishing.publish("PRICE:BTCUSDT", PRICE)
                holds.append(await watch * 1000)
    return holds


async def _longest_turn(seconds: float) -> float:
    began = last = time.monotonic()
    longest = 0.0
    while last < began + seconds:
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = [uvloop.run(measure(arguments.clients)) for _ in range(rounds_of(arguments))]
    holds = sorted(hold for run in runs for hold in run)
    middle = holds[len(holds) // 2]
    rows: list[dict[str, Any]] = [
        {"clients": arguments.clients, "median ms": middle, "max ms": holds[-1]}
    ]
    verdicts = [at_most("P12", "ms that a message holds the loop, median", middle, GOAL_MS)]
    report("loop_hold", rows, {"holds": runs}, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
