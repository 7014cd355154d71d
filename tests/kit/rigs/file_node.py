"""One process's backend in a data folder, and what a kill leaves of it."""

import asyncio
import contextlib
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from server.brokers import FileBroker, FileConfig, FileStore, MemoryConfig
from server.core.counters import Counters
from server.core.log.entries import Entry
from server.tasks import TaskOwner
from tests.kit.clock import ManualClock
from tests.kit.patience import MAX_WAIT_SECONDS


@dataclass(slots=True)
class FileNode:
    """A running broker with its store."""

    folder: Path
    store: FileStore
    broker: FileBroker
    clock: ManualClock
    counters: Counters
    entries: list[Entry] = field(default_factory=list)

    def copy_as_killed(self, to: Path) -> Path:
        """Copy the folder as a `kill -9` at this moment would leave it."""
        to.mkdir()
        for file in self.folder.iterdir():
            # The system's file cache outlives a process; the index of the WAL is made anew.
            if not file.name.endswith("-shm"):
                shutil.copy(file, to)
        return to

    @contextlib.contextmanager
    def stopped_disk(self) -> Iterator[None]:
        """Keep the writer thread from writing until the block ends."""
        resume = threading.Event()
        self.store._jobs.put(lambda: (resume.wait(MAX_WAIT_SECONDS), None)[1])
        try:
            yield
        finally:
            resume.set()

    async def limit_pages(self, count: int) -> None:
        """Let the file grow to so many pages, as on a full disk."""
        await self.store.run(
            lambda database: database.connection.execute(f"PRAGMA max_page_count = {count}").close()
        )


@contextlib.asynccontextmanager
async def file_node(
    folder: Path,
    clock: ManualClock | None = None,
    *,
    memory: MemoryConfig | None = None,
    config: FileConfig | None = None,
) -> AsyncIterator[FileNode]:
    """Run a broker in a folder until the block ends."""
    clock, counters = clock or ManualClock(), Counters()
    store = FileStore(config or FileConfig(folder), counters)
    broker = FileBroker(clock, store, TaskOwner(counters), config=memory)
    node = FileNode(folder, store, broker, clock, counters)
    await broker.start(node.entries.append)
    try:
        yield node
    finally:
        await broker.stop()


async def turns(count: int = 20) -> None:
    """Let the loop run for some turns."""
    for _ in range(count):
        await asyncio.sleep(0)
