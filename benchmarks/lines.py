"""Read commands as lines from stdin, and write replies as JSON lines to stdout."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator


def reply(**body: object) -> None:
    """Write one reply."""
    print(json.dumps(body), flush=True)


async def commands() -> AsyncIterator[list[str]]:
    """The words of each line, until stdin ends."""
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async for line in stdin:
        yield line.decode().split()
