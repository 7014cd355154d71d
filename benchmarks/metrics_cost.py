"""Measure the CPU time of the metrics at 200,000 deliveries a second, with a scrape each 5 s.

Run: python -m benchmarks.metrics_cost
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Callable

from benchmarks.goals import at_most
from server.delivery.channel import Batch
from server.measuring import report
from server.metrics.exposition import render
from server.server import Server
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, running

CLIENTS, TOPICS, DELIVERIES_A_SECOND, SCRAPE_SECONDS = 1_000, 20, 200_000, 5
ROUNDS = 50


def cpu_seconds(work: Callable[[], object], times: int = 1) -> float:
    """The median CPU time of a call."""
    costs = []
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        for _ in range(times):
            work()
        costs.append((time.process_time_ns() - began) / times / 1e9)
    return statistics.median(costs)


def count_one_batch(server: Server) -> Callable[[], object]:
    """What one batch to all clients adds: its own count, and a share of the flush's."""
    channel = server.delivery.hub.channel("PRICE:T0")
    assert channel is not None
    flusher = server.delivery.hub._flusher
    batch = Batch((b"x" * 300, b"x" * 320), 1, 0, int(time.time() * 1000), 1)

    def count() -> None:
        flusher._count(channel, batch, writes=1)
        flusher._traffic.flush_seconds.observe(0.001)

    return count


async def main() -> None:
    """Subscribe all clients to all topics, and price what the metrics add."""
    names = ("connections_per_ip", "connections_per_user", "connects_per_second_per_ip")
    no_limits = {f"limits.{name}": 0 for name in (*names, "events_per_second")}
    async with running(no_limits) as rig:
        clients = []
        for _ in range(CLIENTS):
            client = await RawClient.connect(rig.port, rig.token())
            await client.call("subscribe", {"topics": [f"PRICE:T{i}" for i in range(TOPICS)]})
            clients.append(client)
        for index in range(TOPICS):
            await rig.server.market.publishing.publish(f"PRICE:T{index}", PRICE)
        await until(lambda: rig.server.delivery.hub.delivered >= CLIENTS * TOPICS)
        gc.collect()
        batch = cpu_seconds(count_one_batch(rig.server), times=1_000)
        reading = cpu_seconds(lambda: report(rig.server))
        samples = {"0": report(rig.server).samples}
        rendering = cpu_seconds(lambda: render(samples, "text/plain"))
        counting = batch * DELIVERIES_A_SECOND / CLIENTS
        scraping = (reading + rendering) / SCRAPE_SECONDS
        print(f"one batch to {CLIENTS} clients: {batch * 1e6:.2f} us")
        print(f"one report: {reading * 1e3:.2f} ms; rendered: {rendering * 1e3:.2f} ms")
        print(f"counting: {counting:.3%} of a core; scraping: {scraping:.3%}")
        print(at_most("metrics", "percent of a core", (counting + scraping) * 100, 1.0))
        for client in clients:
            client.cut()


if __name__ == "__main__":
    asyncio.run(main())
