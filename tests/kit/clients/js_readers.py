"""Stock JavaScript clients in a process of their own, and what they have seen."""

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
    """One client: how often it connected and was had back, and what it was refused and has read."""

    number: int
    connects: int
    recovered: int
    errors: list[str]
    resets: int
    gaps: int
    trades: list[str]
    received: int
    connected: bool
    active: bool
    transport: str | None


class Readers:
    """All clients of the process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def reports(self) -> list[Report]:
        """What each has seen until now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"report\n")
        line = await self._process.stdout.readline()
        return [Report(number, **each) for number, each in enumerate(json.loads(line))]

    async def until(self, condition: Callable[[Report], bool]) -> list[Report]:
        """Wait until this is so for each of them."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + MAX_WAIT_SECONDS
        while not all(map(condition, reports := await self.reports())):
            assert loop.time() < give_up_at, reports
            await asyncio.sleep(0.02)
        return reports


@contextlib.asynccontextmanager
async def run_readers(
    url: str, token: str, topic: str, transports: Sequence[Sequence[str]]
) -> AsyncIterator[Readers]:
    """Clients that subscribe to the topic whenever they connect, one for each of these."""
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
