"""Compare what views of 100 order books cost with the whole books, for 1,000 listeners.

Each listener reads all books, which have 200 levels a side. An update sets three levels, 30 behind
the best price on average: a view without a changed level is not sent.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any

import uvloop

from benchmarks.client_pool import SECRET
from benchmarks.processes import Worker, load_average, report
from benchmarks.rounds import argument_parser, medians, rounds_of, run_rounds
from benchmarks.served import UNLIMITED, token
from server.app import SERVER, create_app
from server.server import Server
from server.serving import open_listener, run_app
from server.settings import load_settings
from tests.kit.clients.wire import RawClient

CLIENTS, BOOKS, LEVELS, UPDATES, A_SECOND = 1_000, 100, 200, 1_000, 100
# The levels of one update, and how far from the best price they are on average.
CHANGES, MEAN_RANK = 3, 30
# The topics of one listener; without any, what publishing alone costs.
VARIANTS = {
    "nobody": None,
    "whole book": "ORDERBOOK:S{}",
    "10 levels": "ORDERBOOK:S{}@10",
    "10 levels of 0.05": "ORDERBOOK:S{}@10/0.05",
}
_LOAD_CORE = 1
# The load reads what is left.
_SETTLE_SECONDS = 0.5


class Books:
    """Random books, and random changes of them."""

    def __init__(self) -> None:
        self._random = random.Random(7)

    def whole(self) -> dict[str, object]:
        """All levels of a book."""
        return {
            "bids": [self._level(100_00 - rank) for rank in range(LEVELS)],
            "asks": [self._level(100_01 + rank) for rank in range(LEVELS)],
        }

    def change(self) -> dict[str, object]:
        """New quantities of some levels."""
        ranks: set[int] = set()
        while len(ranks) < CHANGES:
            ranks.add(min(LEVELS - 1, int(self._random.expovariate(1 / MEAN_RANK))))
        bids = [self._level(100_00 - rank) for rank in ranks if rank % 2]
        return {
            "bids": bids,
            "asks": [self._level(100_01 + rank) for rank in ranks if not rank % 2],
        }

    def _level(self, ticks: int) -> list[str]:
        return [f"{ticks / 100:.2f}", f"{self._random.uniform(0.1, 9):.3f}"]


async def measure(topic: str | None, clients: int, updates: int) -> dict[str, float]:
    """Publish updates to the listeners of one variant."""
    environ = {**UNLIMITED, "FLOORCAST_AUTH__SECRET": SECRET}
    settings = load_settings(environ=environ, flags={"server.port": 0})
    app = create_app(settings)
    async with run_app(app, settings, open_listener(settings)) as address:
        server = app[SERVER]
        books = Books()
        for index in range(BOOKS):
            await _publish(server, index, books.whole(), "snapshot")
        port = address.url.rpartition(":")[2]
        command = [sys.executable, "-m", "benchmarks.load", "--port", port, "--token", token()]
        if topic is not None:
            command += ["--topics", *(topic.format(index) for index in range(BOOKS))]
        with Worker(command, _LOAD_CORE) as load:
            snapshot = 0
            if topic is not None:
                await asyncio.to_thread(load.ask, f"open {clients} 32")
                snapshot = await _snapshot_bytes(int(port), topic.format(0))
            figures = await _run(server, books, updates, clients)
            return {**figures, "snapshot_bytes": float(snapshot)}


async def _snapshot_bytes(port: int, topic: str) -> int:
    """The size of the reply that a new listener gets."""
    client = await RawClient.connect(port, token())
    reply = await client.call("subscribe", {"topics": [topic]})
    await client.call("unsubscribe", {"topics": [topic]})
    client.cut()
    return len(json.dumps(reply, separators=(",", ":")))


async def _run(server: Server, books: Books, updates: int, clients: int) -> dict[str, float]:
    await asyncio.sleep(_SETTLE_SECONDS)
    loop = asyncio.get_running_loop()
    traffic = server.delivery.hub._flusher._traffic
    cpu, sent, messages = time.process_time(), traffic.bytes, traffic.messages
    began = loop.time()
    for number in range(updates):
        await _publish(server, number % BOOKS, books.change(), "update")
        await asyncio.sleep(max(0.0, began + number / A_SECOND - loop.time()))
    await asyncio.sleep(_SETTLE_SECONDS)
    return {
        "cpu_us": (time.process_time() - cpu) / updates * 1e6,
        "bytes": (traffic.bytes - sent) / updates / clients,
        "messages": (traffic.messages - messages) / updates / clients,
        "late_ms": (loop.time() - _SETTLE_SECONDS - began - updates / A_SECOND) * 1000,
    }


async def _publish(server: Server, index: int, data: dict[str, object], kind: str) -> None:
    await server.market.publishing.publish(f"ORDERBOOK:S{index}", data, kind=kind)


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--updates", type=int, default=UPDATES)
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(
        list(VARIANTS),
        rounds_of(arguments),
        lambda name: uvloop.run(measure(VARIANTS[name], arguments.clients, arguments.updates)),
    )
    middle = medians(runs)
    whole = middle["whole book"]
    rows: list[dict[str, Any]] = [
        {
            "listeners read": name,
            "CPU us/update": each["cpu_us"],
            "x whole": each["cpu_us"] / whole["cpu_us"],
            "messages/update": each["messages"],
            "bytes/update and client": each["bytes"],
            "bytes x whole": each["bytes"] / whole["bytes"],
            "snapshot bytes": each["snapshot_bytes"],
            "ms late": each["late_ms"],
        }
        for name, each in middle.items()
    ]
    report("views", rows, runs, load_before, time.monotonic() - began, [])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
