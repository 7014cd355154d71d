"""What every Python peer answers: publish flat out or paced, and what memory and CPU was used."""

import asyncio
import gc
import resource
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.lines import commands, reply
from benchmarks.symbols import stamp, symbol

PRICE = {
    "bid": "64250.10",
    "ask": "64250.12",
    "last": "64250.11",
    "volume": "1234.5678",
}
_PAGE_BYTES = resource.getpagesize()

# Takes a symbol and the data of its update.
Publish = Callable[[str, dict[str, str]], Awaitable[object]]


async def serve_commands(publish: Publish) -> None:
    """Answer commands until stdin ends."""
    async for command, *words in commands():
        if command == "publish":
            # The second word says whether the loop may turn after each message.
            turn = words[1] == "turn"
            began, cpu = time.monotonic(), time.process_time()
            for _ in range(int(words[0])):
                await publish("BTCUSDT", PRICE)
                if turn:
                    await asyncio.sleep(0)
            reply(began=began, cpu_before=cpu)
        elif command == "pace":
            reply(**await publish_paced(publish, *map(int, words)))
        elif command == "stats":
            # Told twice, so that what collecting costs can be left out of any difference.
            cpu = time.process_time()
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            reply(rss=pages * _PAGE_BYTES, cpu=cpu, cpu_collected=time.process_time())


async def publish_paced(
    publish: Publish, rate: int, seconds: int, topics: int, batch_ms: int, note_bytes: int = 0
) -> dict[str, float]:
    """Publish so many a second, one topic after the other, a batch at a time.

    The schedule does not wait for a server that is late: what is not out when the time is over
    is left out. `late` is by how much the worst batch missed its moment.
    """
    price = PRICE | ({"note": "x" * note_bytes} if note_bytes else {})
    cpu, began = time.process_time(), time.monotonic()
    ends = began + seconds
    published, late = 0, 0.0
    for batch in range(seconds * 1000 // batch_ms):
        due = began + batch * batch_ms / 1000
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        late = max(late, time.monotonic() - due)
        for _ in range(rate * batch_ms // 1000):
            if time.monotonic() >= ends:
                break
            index = published % topics
            published += 1
            await publish(symbol(index), {**price, "volume": stamp(time.monotonic_ns(), index)})
    return {"began": began, "cpu_before": cpu, "published": published, "late": late}
