"""Serve the commands of every Python peer: publish, pace, stats."""

import asyncio
import ctypes
import gc
import os
import resource
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

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

# From <linux/time.h> and <sys/timerfd.h>; Python 3.13 has them in os.
_CLOCK_MONOTONIC, _ABSOLUTE, _NONBLOCKING = 1, 1, os.O_NONBLOCK
_TIMER = struct.Struct("@qqqq")

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


class ExactTimer:
    """Sleeps to the microsecond: timers of event loops are no finer than a millisecond."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCKING)
        self._expired = asyncio.Event()

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._fd, self._on_expired)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    async def sleep_until(self, moment: float) -> None:
        """Sleep until a time of the monotonic clock, which must be in the future."""
        self._expired.clear()
        seconds, nanoseconds = divmod(int(moment * 1e9), 10**9)
        when = _TIMER.pack(0, 0, seconds, max(1, nanoseconds))
        if self._libc.timerfd_settime(self._fd, _ABSOLUTE, when, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._expired.wait()

    def _on_expired(self) -> None:
        os.read(self._fd, 8)
        self._expired.set()


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
    with ExactTimer() as timer:
        for batch in range(seconds * 1000 // batch_ms):
            due = began + batch * batch_ms / 1000
            if due > time.monotonic():
                await timer.sleep_until(due)
            elif batch % _BATCHES_PER_TURN == 0:
                await asyncio.sleep(0)
            late = max(late, time.monotonic() - due)
            for _ in range(rate * batch_ms // 1000):
                if time.monotonic() >= ends:
                    break
                index = published % topics
                published += 1
                await publish(symbol(index), {**price, "volume": stamp(int(due * 1e9), index)})
    return {"began": began, "cpu_before": cpu, "published": published, "late": late}
