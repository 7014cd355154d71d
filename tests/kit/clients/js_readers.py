"""Run stock JavaScript clients that read one topic and report what they received."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kit.patience import MAX_WAIT_SECONDS

SCRIPT = Path(__file__).parents[2] / "js" / "readers.mjs"
DEFAULT_TRANSPORTS = ("polling", "websocket")


@dataclass(frozen=True, slots=True)
class Report:
    """The state of one client: connects, recoveries, errors and received trades."""

    number: int
    connects: int
    recovered: int
    lost: int
    errors: list[str]
    resets: int
    gaps: int
    trades: list[str]
    received: int
    connected: bool
    active: bool
    transport: str | None


class Readers:
    """The Node process that runs the clients."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def reports(self) -> list[Report]:
        """The current report of each client."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"report\n")
        line = await self._process.stdout.readline()
        return [Report(number, **each) for number, each in enumerate(json.loads(line))]

    async def until(self, condition: Callable[[Report], bool]) -> list[Report]:
        """Wait until a condition holds for each client."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + MAX_WAIT_SECONDS
        while not all(map(condition, reports := await self.reports())):
            assert loop.time() < ends_at, reports
            await asyncio.sleep(0.02)
        return reports


@contextlib.asynccontextmanager
async def run_readers(
    url: str, token: str, topic: str, transports: Sequence[Sequence[str]]
) -> AsyncIterator[Readers]:
    """Run one client for each list of transports; each subscribes whenever it connects anew."""
    assert (SCRIPT.parent / "node_modules").is_dir(), "run `npm --prefix tests/js ci` first"
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
        env={
            **os.environ,
            "FLOORCAST_URL": url,
            "FLOORCAST_TOKEN": token,
            "FLOORCAST_TOPIC": topic,
            "FLOORCAST_READERS": json.dumps(transports),
        },
    )
    try:
        yield Readers(process)
    finally:
        process.kill()
        await process.wait()
