"""Measure the publish rate and the CPU cost of each broker on one node.

`--waiting` tasks publish at the same time, each to its own topic and one message after the other,
as feeds and clients do; the node receives every message again. Redis runs as a separate process
on a private socket, without persistence; the file is on the disk of `--folder`.
"""

import argparse
import asyncio
import subprocess
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.goals import at_least, exit_code
from benchmarks.processes import load_average, report
from benchmarks.rounds import Figures, argument_parser, medians, rounds_of, run_rounds
from server.brokers import (
    Address,
    FileBroker,
    FileConfig,
    FileStore,
    MemoryBroker,
    RedisBroker,
    RedisConfig,
)
from server.core.counters import Counters
from server.core.log.entries import Entry
from server.ports import Broker
from server.server import SystemClock
from server.tasks import TaskOwner

GOAL_PER_SECOND = 20_000
MESSAGES, WAITING, DATA_BYTES = 100_000, 400, 160
BROKERS = ("memory", "file", "file, with history", "redis", "redis, with history", "redis, watched")


async def run_publishers(broker: Broker, arguments: argparse.Namespace, name: str) -> Figures:
    """Run one round; the first messages warm up and do not count."""
    received = 0

    def receive(entry: Entry) -> None:
        nonlocal received
        received += 1

    await broker.start(receive)
    topics = [f"PRICE:S{number}" for number in range(arguments.waiting)]
    if "watched" in name:
        await asyncio.gather(*map(broker.watch, topics))
    data = b'{"text":"%b"}' % (b"x" * (DATA_BYTES - 11))
    per_topic = max(1, arguments.messages // arguments.waiting)
    kept = "history" in name
    slowest = 0.0

    async def publish_to(topic: str, count: int) -> None:
        nonlocal slowest
        for _ in range(count):
            began = time.perf_counter()
            await broker.publish(topic, data, 1, in_history=kept)
            slowest = max(slowest, time.perf_counter() - began)

    await asyncio.gather(*(publish_to(topic, per_topic // 10 + 1) for topic in topics))
    received, slowest = 0, 0.0
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(publish_to(topic, per_topic) for topic in topics))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    count = per_topic * len(topics)
    while "watched" in name and received < count:
        await asyncio.sleep(0.001)
    await broker.stop()
    return {
        "per_second": count / seconds,
        "cpu_us": cpu / count * 1e6,
        "slowest_ms": slowest * 1000,
        "received": received,
    }


def measure(name: str, arguments: argparse.Namespace) -> Figures:
    """Run one round with a fresh broker, and a fresh Redis if it needs one."""
    if name == "memory":
        return uvloop.run(run_publishers(MemoryBroker(SystemClock(), epoch="e"), arguments, name))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if name.startswith("file"):
            counters = Counters()
            store = FileStore(FileConfig(Path(folder), sync=arguments.sync), counters)
            file_broker = FileBroker(SystemClock(), store, TaskOwner(counters))
            return uvloop.run(run_publishers(file_broker, arguments, name))
        socket = Path(folder, "redis.sock")
        process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", socket, "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        try:
            while not socket.exists():
                time.sleep(0.01)
            config = RedisConfig(Address.parse(f"unix://{socket}"))
            broker = RedisBroker(SystemClock(), Counters(), config)
            return uvloop.run(run_publishers(broker, arguments, name))
        finally:
            process.kill()
            process.wait()


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--waiting", type=int, default=WAITING, help="publishes at the same time")
    parser.add_argument("--folder", help="where the data file is written (default: as TMPDIR)")
    parser.add_argument("--sync", default="batch", choices=("always", "batch", "os"))
    arguments = parser.parse_args()
    load_before, began = load_average(), time.monotonic()
    runs = run_rounds(list(BROKERS), rounds_of(arguments), lambda name: measure(name, arguments))
    middle = medians(runs)
    rows = [
        {
            "broker": name,
            "publishes/s": each["per_second"],
            "node's CPU us each": each["cpu_us"],
            "slowest ms": each["slowest_ms"],
            "received": each["received"],
        }
        for name, each in middle.items()
    ]
    rate = middle["redis, with history"]["per_second"]
    verdicts = [at_least("Redis", "publishes/s with history", rate, GOAL_PER_SECOND)]
    report("brokers", rows, runs, load_before, time.monotonic() - began, verdicts)
    return exit_code(verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
