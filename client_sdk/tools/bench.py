"""`floorcast bench`: loads a server, and proves that every client received everything."""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from client_sdk.client import Client
from client_sdk.connection.states import ClientState
from client_sdk.contract import Scope
from client_sdk.errors import FloorcastError
from client_sdk.stats import Latencies
from client_sdk.tools.options import (
    Commands,
    UsageError,
    add_json,
    add_target,
    count,
    positive,
    target_of,
)
from client_sdk.tools.progress import Progress
from client_sdk.tools.proof import Proof, Receiver

# How long the last messages may take after the load has ended.
_SETTLE_SECONDS = 5.0
_MAX_WAITING = 5000


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="load a server and check what arrives",
        description=(
            "Publish trades to topics of its own at a steady rate, receive them with many "
            "clients, and check each one: latency from the moment a message was due, gaps, "
            "duplicates and reorders. The exit status is 1 unless all three are 0 and nothing is "
            "missing. Clients and publisher share one process: its CPU share is printed, and "
            "above 90% the latencies are its own."
        ),
    )
    parser.add_argument("--clients", type=count, default=10, help="default 10")
    parser.add_argument("--topics", type=count, default=5, help="default 5; all clients read all")
    parser.add_argument(
        "--rate", type=positive, default=100.0, help="messages a second in all (default 100)"
    )
    parser.add_argument("--seconds", type=positive, default=10.0, help="default 10")
    parser.add_argument(
        "--symbol", default="BENCH", help="prefix of the symbols that it publishes (default BENCH)"
    )
    add_target(parser)
    add_json(parser, "the result")
    parser.set_defaults(run_tool=_run)


async def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    target = target_of(arguments, environ)
    target.require_token(f"{Scope.MARKET_PUBLISH} and {Scope.MARKET_READ}")
    topics = [f"TRADES:{arguments.symbol}{number}" for number in range(1, arguments.topics + 1)]
    clients = [target.client() for _ in range(arguments.clients)]
    async with target.client() as publisher, _Connected(clients):
        load = _Load(publisher, topics)
        latencies = Latencies()
        receivers = [Receiver(each, topics, load.due_at, latencies) for each in clients]
        for receiver in receivers:
            await receiver.ready()
        tasks = [asyncio.create_task(each.run(), name="bench-reader") for each in receivers]
        try:
            began, cpu_began = time.perf_counter(), time.process_time()
            await load.run(arguments.rate, arguments.seconds)
            await _settle(receivers, load)
            seconds = time.perf_counter() - began
            cpu_share = (time.process_time() - cpu_began) / seconds
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    proof = Proof.of(
        receivers, load.published, load.refused, latencies.summary(), load.late_ms, cpu_share
    )
    print(json.dumps(proof.body()) if arguments.json else proof.text())
    return 0 if proof.holds else 1


class _Connected:
    """Connects many clients, some at a time, and closes them."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients

    async def __aenter__(self) -> None:
        try:
            with Progress("connecting", len(self._clients)) as progress:
                for client in self._clients:
                    await _start(client)
                    progress.advance()
        except BaseException:
            await self._close()
            raise

    async def __aexit__(self, *exc: object) -> None:
        await self._close()

    async def _close(self) -> None:
        await asyncio.gather(*(each.close() for each in self._clients))


async def _start(client: Client) -> None:
    """Connect; raises `UsageError` at once if the server has too many clients."""
    refused: asyncio.Future[FloorcastError] = asyncio.get_running_loop().create_future()

    def on_state(state: ClientState, reason: FloorcastError | None) -> None:
        if reason is not None and reason.code.startswith("limit.") and not refused.done():
            refused.set_result(reason)

    client.on_state(on_state)
    starting = asyncio.create_task(client.start(), name="bench-start")
    waiting: set[asyncio.Future[Any]] = {starting, refused}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        await starting
        return
    starting.cancel()
    await asyncio.wait({starting})
    raise UsageError(
        f"the server accepts no more clients ({refused.result()}): raise its limits.* or use "
        "fewer --clients"
    )


class _Load:
    """Publishes at a steady rate, each message when it is due, however late the one before."""

    def __init__(self, publisher: Client, topics: list[str]) -> None:
        self._publisher = publisher
        self._topics = topics
        self._prefix = f"{os.getpid():x}-{time.time_ns():x}"
        self._due: list[float] = []
        self.published = 0
        self.refused: dict[str, int] = {}
        # By how much the publisher itself was late, at most.
        self.late_ms = 0.0

    def due_at(self, trade_id: str) -> tuple[int, float] | None:
        """The number of a message and when it was due; None for somebody else's message."""
        prefix, _, number = trade_id.rpartition("/")
        if prefix != self._prefix:
            return None
        return int(number), self._due[int(number)]

    async def run(self, rate: float, seconds: float) -> None:
        """Publish for so long; returns once every message was acknowledged or refused."""
        began = time.perf_counter()
        total = max(1, round(rate * seconds))
        free = asyncio.Semaphore(_MAX_WAITING)
        with Progress("publishing", total) as progress:
            async with asyncio.TaskGroup() as group:
                for number in range(total):
                    due = began + number / rate
                    self._due.append(due)
                    wait = due - time.perf_counter()
                    if wait > 0:
                        await asyncio.sleep(wait)
                    await free.acquire()
                    self.late_ms = max(self.late_ms, (time.perf_counter() - due) * 1000)
                    group.create_task(self._publish(number, free, progress))

    async def _publish(self, number: int, free: asyncio.Semaphore, progress: Progress) -> None:
        trade = {
            "id": f"{self._prefix}/{number}",
            "price": "1",
            "qty": "1",
            "side": "buy",
            "ts": int(time.time() * 1000),
        }
        topic = self._topics[number % len(self._topics)]
        try:
            await self._publisher.market.publish(topic, {"trades": [trade]})
            self.published += 1
        except FloorcastError as error:
            self.refused[str(error)] = self.refused.get(str(error), 0) + 1
        finally:
            progress.advance()
            free.release()


async def _settle(receivers: list[Receiver], load: _Load) -> None:
    until = time.perf_counter() + _SETTLE_SECONDS
    while time.perf_counter() < until:
        if all(each.received >= load.published for each in receivers):
            return
        await asyncio.sleep(0.05)
