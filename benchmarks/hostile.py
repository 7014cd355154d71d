"""Measure how long a well-behaved client waits for a reply while others attack the server.

The server has its default limits and runs on one core, the attackers on the other. The
well-behaved client asks for its subscriptions 50 times a second. Everything is on this machine.
"""

import json
import socket
import sys
import time
from typing import Any

from benchmarks.client_pool import masked
from benchmarks.goals import at_most, exit_code
from benchmarks.hostile_load import ATTACKS
from benchmarks.processes import LOAD_CORE, SERVER_CORE, Worker, load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of, run_rounds
from benchmarks.served import ServerProcess, token

RATE, SECONDS, WARM_SECONDS = 100.0, 6.0, 1.0
ASK_SECONDS, TIMEOUT_SECONDS = 0.02, 30.0
# The number of attackers, and the goal for the p99 of the well-behaved client.
GOALS_MS = {1: 50.0, 50: 100.0}
CALM = "nobody attacks"
# The defaults, which `ServerProcess` turns off.
LIMITED = {
    "FLOORCAST_LIMITS__EVENTS_PER_SECOND": "100",
    "FLOORCAST_AUTH__MARKET_OPTIONAL": "true",
}


class GoodClient:
    """A client that sends one request, waits for its reply, and pauses."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        auth = json.dumps({"token": token(), "recovery": False})
        self._exchange(masked(f"40/market,{auth}".encode()), b'"welcome"')

    def ask(self) -> float:
        """The seconds until the reply to one request."""
        began = time.perf_counter()
        self._exchange(masked(b'42/market,7["subscriptions",{}]'), b"43/market,7")
        return time.perf_counter() - began

    def _exchange(self, frame: bytes, expected: bytes) -> None:
        self._socket.sendall(frame)
        received = b""
        while expected not in received:
            received += (chunk := self._socket.recv(65536))
            if not chunk:
                raise RuntimeError("the server closed the well-behaved client")


def measure(name: str, seconds: float) -> Figures:
    """Run one attack against a fresh server."""
    attack, _, count = name.partition(" x ")
    environ = LIMITED
    with ServerProcess(broker="memory://", core=SERVER_CORE, environ=environ) as server:
        client = GoodClient(server.port)
        command = [sys.executable, "-m", "benchmarks.hostile_load", "--port", str(server.port)]
        with Worker(command, LOAD_CORE) as load:
            if count:
                load.send(f"attack {count} {seconds + WARM_SECONDS} {RATE} {attack}")
            time.sleep(WARM_SECONDS)
            waits: list[float] = []
            cpu_before, until = sum(server.cpu_seconds()), time.monotonic() + seconds
            while time.monotonic() < until:
                waits.append(client.ask())
                time.sleep(ASK_SECONDS)
            cpu = sum(server.cpu_seconds()) - cpu_before
            figures = load.read_reply() if count else {}
    waits.sort()
    return {
        "p50_ms": waits[len(waits) // 2] * 1000,
        "p99_ms": waits[int(len(waits) * 0.99)] * 1000,
        "max_ms": waits[-1] * 1000,
        "server_share": cpu / seconds,
        "sent": figures.get("sent", 0.0),
        "closed": figures.get("closed", 0.0),
    }


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--attack", choices=ATTACKS, help="only this one")
    arguments = parser.parse_args()
    attacks = [arguments.attack] if arguments.attack else list(ATTACKS)
    names = [CALM, *(f"{attack} x {count}" for attack in attacks for count in GOALS_MS)]
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(names, rounds_of(arguments), lambda name: measure(name, arguments.seconds))
    middle = medians(runs)
    rows: list[dict[str, Any]] = [
        {
            "attack": name,
            "p50 ms": each["p50_ms"],
            "p99 ms": each["p99_ms"],
            "max ms": each["max_ms"],
            "server's CPU share": each["server_share"],
            "events sent": each["sent"],
            "attackers closed": each["closed"],
        }
        for name, each in middle.items()
    ]
    verdicts = [
        at_most(
            "fairness", f"p99 ms, {name}", each["p99_ms"], GOALS_MS[int(name.rpartition(" x ")[2])]
        )
        for name, each in middle.items()
        if name != CALM
    ]
    report("hostile", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
