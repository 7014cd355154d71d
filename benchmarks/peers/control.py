"""What every Python peer answers: publish flat out, and how much memory and CPU was used."""

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

PRICE = {
    "bid": "64250.10",
    "ask": "64250.12",
    "last": "64250.11",
    "volume": "1234.5678",
}
_PAGE_BYTES = resource.getpagesize()


def say(**body: object) -> None:
    """One line of JSON."""
    print(json.dumps(body), flush=True)


async def obey(publish: Callable[[], Awaitable[object]]) -> None:
    """Answer commands until stdin ends."""
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async for line in stdin:
        command, *words = line.decode().split()
        if command == "publish":
            # The second word says whether the loop may turn after each message.
            turn = words[1] == "turn"
            began, cpu = time.monotonic(), time.process_time()
            for _ in range(int(words[0])):
                await publish()
                if turn:
                    await asyncio.sleep(0)
            say(began=began, cpu_before=cpu)
        elif command == "stats":
            # Told twice, so that what collecting costs can be left out of any difference.
            cpu = time.process_time()
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            say(rss=pages * _PAGE_BYTES, cpu=cpu, cpu_collected=time.process_time())
