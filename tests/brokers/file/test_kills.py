"""A broker killed at random moments under load loses and doubles nothing."""

import asyncio
import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from server.brokers import FileBroker, FileConfig, FileStore
from server.core.counters import Counters
from server.core.log.entries import Position
from server.ports import ignore
from server.server import SystemClock
from server.tasks import TaskOwner
from tests.brokers.file.killed_publisher import CHANNELS, KEPT

KILLS = int(os.environ.get("FLOORCAST_TEST_KILLS", "8"))


async def run_until_killed(folder: Path, run: int, retries: list[str]) -> list[list[str]]:
    """Run a publisher, kill it at a random moment of its work; returns its complete lines."""
    program = ["-m", "tests.brokers.file.killed_publisher", str(folder), str(run), *retries]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *program, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    first = await process.stdout.readline()
    asyncio.get_running_loop().call_later(random.uniform(0.0, 0.3), process.kill)
    lines = (first + await process.stdout.read()).decode().split("\n")[:-1]
    await process.wait()
    return [line.split() for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(60 + 10 * KILLS)
async def test_kills_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    kept: dict[str, tuple[str, Position]] = {}
    unanswered: list[str] = []
    acknowledged = 0
    for run in range(KILLS):
        sent = dict.fromkeys(unanswered)
        for line in await run_until_killed(tmp_path, run, unanswered):
            if line[0] == "sent":
                sent[line[1]] = None
            else:
                _, name, channel, epoch, seq = line
                kept[name] = channel, Position(epoch, int(seq))
                del sent[name]
                acknowledged += 1
        unanswered = [*sent]
        lost, doubled = await compare(tmp_path, kept)
        assert (lost, doubled) == ([], []), f"after kill {run + 1}"
    print(f"{KILLS} kills, {acknowledged} acknowledged, 0 lost, 0 doubled")
    assert acknowledged > KILLS


async def compare(
    folder: Path, kept: dict[str, tuple[str, Position]]
) -> tuple[list[str], list[str]]:
    """The acknowledged messages that are missing, and those that are there twice."""
    counters = Counters()
    store = FileStore(FileConfig(folder), counters)
    broker = FileBroker(SystemClock(), store, TaskOwner(counters), config=KEPT)
    await broker.start(ignore)
    try:
        names: Counter[str] = Counter()
        found: dict[str, dict[Position, str]] = {}
        for number in range(CHANNELS):
            entries = await broker.before(f"T{number}", None, 10**6)
            found[f"T{number}"] = {each.position: each.data.decode() for each in entries}
            names.update(each.data.decode() for each in entries)
    finally:
        await broker.stop()
    lost = []
    for name, (channel, position) in kept.items():
        oldest = next(iter(found[channel]), position)
        if position.epoch != oldest.epoch or (
            position.seq >= oldest.seq and found[channel].get(position) != name
        ):
            lost.append(name)
    return lost, [name for name, count in names.items() if count > 1]
