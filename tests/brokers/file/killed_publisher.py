"""A process that publishes to a data folder until it is killed: see `test_kills`.

It writes a line for each message before it publishes it, and one for each acknowledgement.
"""

import asyncio
import os
import sys
from pathlib import Path

from server.brokers import FileBroker, FileConfig, FileStore, MemoryConfig
from server.core.counters import Counters
from server.core.log.history import HistoryBounds
from server.core.log.idempotency import Claim
from server.core.sessions.histories import HistoryRules
from server.ports import ignore
from server.server import SystemClock
from server.tasks import TaskOwner

PUBLISHERS = 100
CHANNELS = 10
KEPT = MemoryConfig(
    histories=HistoryRules(HistoryBounds(messages=5_000, bytes=2**30)), max_claims=50_000
)


async def main(folder: Path, run: str, retries: list[str]) -> None:
    """Publish the retries, then new messages for ever."""
    counters = Counters()
    store = FileStore(FileConfig(folder), counters)
    clock = SystemClock()
    broker = FileBroker(clock, store, TaskOwner(counters), config=KEPT)
    await broker.start(ignore)

    async def publish(name: str) -> None:
        channel = f"T{int(name.split('-')[1]) % CHANNELS}"
        os.write(1, f"sent {name}\n".encode())
        receipt = await broker.publish(
            channel,
            name.encode(),
            int(clock.time() * 1000),
            in_history=True,
            claim=Claim(f"org\0{name}", b"digest"),
        )
        position = receipt.position
        os.write(1, f"kept {name} {channel} {position.epoch} {position.seq}\n".encode())

    await asyncio.gather(*map(publish, retries))

    async def publish_on(number: int) -> None:
        while True:
            await publish(f"{run}-{number}")
            number += PUBLISHERS

    await asyncio.gather(*map(publish_on, range(PUBLISHERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
