"""Measure how fast 5,000 clients reconnect to a restarted server, and what they lose."""

import signal
import socket
import sys
import time
from typing import Any

from benchmarks.goals import Verdict, at_most, exit_code
from benchmarks.processes import LOAD_CORE, SERVER_CORE, Worker, load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of, run_rounds
from benchmarks.served import ServerProcess, token
from server.cli.private_redis import private_redis

CLIENTS, GOAL = 5000, 1.25
SIGNALS = {"drained": signal.SIGTERM, "killed": signal.SIGKILL}


def measure(how: str, clients: int, drain_seconds: float, broker: str | None) -> Figures:
    """Run one round: connect, stop the server, start the next one, wait for all reconnects."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environ = {"FLOORCAST_SERVER__DRAIN_SECONDS": str(drain_seconds)}
    with private_redis() as redis:

        def serve() -> ServerProcess:
            return ServerProcess(
                port=port, broker=broker or redis, core=SERVER_CORE, environ=environ
            )

        first = serve()
        command = [sys.executable, "-m", "benchmarks.recovering"]
        with (
            first,
            Worker([*command, "--port", str(port), "--token", token()], LOAD_CORE) as load,
        ):
            started = sum(first.cpu_seconds())
            connecting = load.ask(f"fill {clients}")["seconds"]
            connecting_cpu = sum(first.cpu_seconds()) - started
            load.ask("publish")
            time.sleep(1)
            ending = first.stop(SIGNALS[how])
            with serve() as second:
                started = sum(second.cpu_seconds())
                reconnected = load.ask("reconnected")
                cpu = sum(second.cpu_seconds()) - started
                losses = load.ask("analyze")
    return {
        "connecting": connecting,
        "ending": ending,
        "back": reconnected["at"] - second.ready_at,
        "connecting_cpu": connecting_cpu,
        "back_cpu": cpu,
        "acknowledged": losses["acknowledged"],
        "resets": losses["resets"],
        "gaps": losses["gaps"],
        "behind": losses["behind"],
    }


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--drain-seconds", type=float, default=2.0)
    parser.add_argument("--broker", help="broker URL; the default starts a private redis-server")
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(
        SIGNALS,
        rounds_of(arguments),
        lambda how: measure(how, arguments.clients, arguments.drain_seconds, arguments.broker),
    )
    middle = medians(runs)
    rows: list[dict[str, Any]] = [
        {
            "server end": how,
            "s to connect all": each["connecting"],
            "s to end": each["ending"],
            "s until all were back": each["back"],
            "x connecting": each["back"] / each["connecting"],
            "CPU ms to connect one": each["connecting_cpu"] / arguments.clients * 1000,
            "x that to reconnect": each["back_cpu"] / each["connecting_cpu"],
            "acknowledged": each["acknowledged"],
            "resets": each["resets"],
            "gaps": each["gaps"],
            "without the last": each["behind"],
        }
        for how, each in middle.items()
    ]
    verdicts: list[Verdict] = []
    for row in rows:
        how = row["server end"]
        lost = max(run["resets"] + run["gaps"] + run["behind"] for run in runs[how])
        verdicts += [
            at_most("P9", f"{how}, x the time of connecting", row["x connecting"], GOAL),
            at_most("P9", f"{how}, clients that lost anything", lost, 0),
        ]
    report("restart", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
