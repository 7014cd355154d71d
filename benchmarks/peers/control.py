"""Serve the commands of every Python peer: publish, pace, stats."""

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
# A late schedule catches up, but lets the server send after so many batches.
_BATCHES_PER_TURN = 4
_PAGE_BYTES = resource.getpagesize()

# Publishes the data of one symbol's update.
Publish = Callable[[str, dict[str, str]], Awaitable[object]]


async def serve_commands(publish: Publish) -> None:
    """Serve commands until stdin ends."""
    async for command, *words in commands():
        if command == "publish":
            # With "turn" the event loop runs once after each message.
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
            # The CPU time before and after collecting: a difference can exclude the collection.
            cpu = time.process_time()
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            reply(rss=pages * _PAGE_BYTES, cpu=cpu, cpu_collected=time.process_time())


async def publish_paced(
    publish: Publish, rate: int, seconds: int, topics: int, batch_ms: int, note_bytes: int = 0
) -> dict[str, float]:
    """Publish at a fixed rate, in batches, to the topics in turn.

    Each message has the time when it was due. The schedule does not wait for a late server:
    messages unpublished at the end are skipped. `late` is the delay of the latest batch.
    """
    price = PRICE | ({"note": "x" * note_bytes} if note_bytes else {})
    cpu, began = time.process_time(), time.monotonic()
    ends = began + seconds
    published, late = 0, 0.0
    for batch in range(seconds * 1000 // batch_ms):
        due = began + batch * batch_ms / 1000
        wait = due - time.monotonic()
        if wait > 0.0 or batch % _BATCHES_PER_TURN == 0:
            await asyncio.sleep(max(0.0, wait))
        late = max(late, time.monotonic() - due)
        for _ in range(rate * batch_ms // 1000):
            if time.monotonic() >= ends:
                break
            index = published % topics
            published += 1
            await publish(symbol(index), {**price, "volume": stamp(int(due * 1e9), index)})
    return {"began": began, "cpu_before": cpu, "published": published, "late": late}
