"""Follows the watched channels: what is told is heard, what was missed is read, and in order."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable
from typing import TypeVar

from server.brokers.failures import Failures
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.pipeline import Pipeline, away
from server.brokers.redis.connection.wire import Wire
from server.brokers.redis.log.codec import decode
from server.brokers.redis.log.gap_detector import Watches
from server.brokers.redis.log.pubsub import Listener
from server.brokers.redis.log.reader import LogReader
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.log.entries import Entry, Position, Reset
from server.ports import unheard

T = TypeVar("T")

_READS_AT_ONCE = 64
# What Redis refuses to tell, of one channel and not of others, is asked for again so much later.
_AGAIN_SECONDS = 0.25
_PROBE_SECONDS = 1.0
_DEAF_SECONDS = 2.5


class Follower:
    """Owns the listener and the two loops: one reads what is behind, one finds out who is deaf."""

    def __init__(
        self,
        wire: Wire,
        pipeline: Pipeline,
        reader: LogReader,
        keys: Keys,
        counters: Counters,
        *,
        own: bytes,
        timeout_seconds: float,
        entry_bytes: int,
    ) -> None:
        self._pipeline = pipeline
        self._reader = reader
        self._keys = keys
        self._counters = counters
        self._own = own
        self._timeout_seconds = timeout_seconds
        self._entry_bytes = entry_bytes
        self._listener = Listener(
            wire,
            own,
            timeout_seconds=timeout_seconds,
            wanted=self._wanted,
            on_own=lambda message: self._on_own(message),
            on_message=self._hear,
            on_subscribed=self._doubt,
            on_change=self.look_around,
        )
        self._watches = Watches(unheard, unheard, counters.add)
        self._spoken: dict[bytes, str] = {}
        self._on_state: Callable[[bool], None] = unheard
        self._on_own: Callable[[object], None] = unheard
        self._overhearers: list[tuple[Callable[[str, bytes], bool], Callable[[], None]]] = []
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = Failures()
        # Whether both ways to Redis are open, and nothing is behind any more.
        self.up = False

    async def start(
        self,
        deliver: Callable[[Entry], None],
        on_reset: Callable[[Reset], None],
        on_state: Callable[[bool], None],
    ) -> None:
        """Open both ways to Redis; raises what keeps us from it."""
        self._watches = Watches(self._careful(deliver), self._careful(on_reset), self._counters.add)
        self._on_state = on_state
        await self._pipeline.start()
        await self._listener.start()
        create_task = asyncio.create_task
        self._tasks = [
            create_task(self._keep_reading(), name="floorcast-broker-reader"),
            create_task(self._keep_probing(), name="floorcast-broker-probe"),
        ]
        self.look_around()

    async def stop(self) -> None:
        """Close both ways; nothing is told any more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        await self._listener.stop()
        await self._pipeline.stop()
        self._spoken.clear()
        self._on_state = unheard

    def overhear(self, on_said: Callable[[str, bytes], bool], on_up: Callable[[], None]) -> None:
        """Hear what is told to watched channels and is no entry; `on_said` says whether it knows.

        `on_up` is called whenever something may have been missed, once that is over.
        """
        self._overhearers.append((on_said, on_up))

    def answer_to(self, on_own: Callable[[object], None]) -> None:
        """Hear what another node says to this one alone."""
        self._on_own = on_own

    def __contains__(self, channel: object) -> bool:
        """Whether the channel is watched."""
        return channel in self._watches

    async def watch(self, channel: str) -> None:
        """Deliver everything that comes of the channel after this has returned."""
        # What was asked last holds, and is settled here, before anything waits.
        watch = self._watches.add(channel)
        if watch.position is not None:
            return
        spoken = self._keys.spoken(channel)
        self._spoken[spoken] = channel
        self._listener.subscribe(spoken)
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watch.settled.append(settled)
        if not self.up:
            raise away()
        await self._within_time(settled)

    async def unwatch(self, channel: str) -> None:
        """Deliver no more of it."""
        if channel not in self._watches:
            return
        self._watches.drop(channel)
        spoken = self._keys.spoken(channel)
        del self._spoken[spoken]
        self._listener.unsubscribe(spoken)

    async def reach(self, channel: str, place: Position) -> None:
        """Wait until so much of the channel was delivered, where it is watched."""
        await self._within_time(self._watches.reaches(channel, place))

    def look_around(self) -> None:
        """Something has gone, or is back."""
        if not (self._pipeline.up and self._listener.up):
            self._set_up(False)
        if not self._listener.up:
            for channel in self._watches.channels():
                self._watches.doubt(channel)
        self._work.set()

    def _careful(self, tell: Callable[[T], None]) -> Callable[[T], None]:
        """What fails there is not ours: the next entry is told all the same."""

        def told(what: T) -> None:
            try:
                tell(what)
            except Exception as failure:
                self._failures.report(failure)

        return told

    async def _within_time(self, done: asyncio.Future[None] | None) -> None:
        if done is None:
            return
        # Not `asyncio.timeout`: a handler runs without a task until it waits for the first time.
        loop = asyncio.get_running_loop()
        limit = loop.call_later(self._timeout_seconds, _give_up, done)
        try:
            await done
        finally:
            limit.cancel()

    def _wanted(self) -> Iterable[bytes]:
        return tuple(self._spoken)

    def _hear(self, spoken: bytes, message: object) -> None:
        channel = self._spoken.get(spoken)
        if channel is None:
            return
        entry = decode(channel, message, self._entry_bytes)
        if entry is None:
            if not self._is_said(channel, message):
                self._counters.add("broker.strange")
        elif self._watches.hear(entry):
            self._work.set()

    def _is_said(self, channel: str, message: object) -> bool:
        if not isinstance(message, bytes) or len(message) > self._entry_bytes:
            return False
        return any(on_said(channel, message) for on_said, _ in self._overhearers)

    def _doubt(self, spoken: bytes) -> None:
        channel = self._spoken.get(spoken)
        if channel is not None:
            self._watches.doubt(channel)
            self._work.set()

    def _set_up(self, up: bool) -> None:
        if self.up != up:
            self.up = up
            if not up:
                self._counters.add("broker.lost")
            self._on_state(up)
            if up:
                for _, on_up in self._overhearers:
                    on_up()

    async def _keep_reading(self) -> None:
        while True:
            waits = self._watches.behind and self._pipeline.up
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_SECONDS if waits else None):
                    await self._work.wait()
            self._work.clear()
            await self._read_behind()
            if self._pipeline.up and self._listener.up:
                self._set_up(True)

    async def _read_behind(self) -> None:
        """Bring what is behind up to the log, each once where that is refused."""
        refused: set[str] = set()
        while self._pipeline.up:
            behind = (each for each in self._watches.behind if each not in refused)
            some = tuple(itertools.islice(behind, _READS_AT_ONCE))
            if not some:
                return
            told = await asyncio.gather(*map(self._catch_up, some))
            refused.update(
                channel for channel, is_told in zip(some, told, strict=True) if not is_told
            )

    async def _catch_up(self, channel: str) -> bool:
        watch = self._watches.get(channel)
        if watch is None:
            return True
        known = watch.position
        try:
            reading = await self._reader.read(channel, known, state=known is not None)
        except FloorcastError:
            # It stays behind until Redis is back, or lets us read it again.
            return False
        self._watches.read(channel, known, reading)
        return True

    async def _keep_probing(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            if not (self._pipeline.up and self._listener.up):
                continue
            if loop.time() - self._listener.heard_at > _DEAF_SECONDS:
                self._counters.add("broker.deaf")
                await self._listener.reopen()
                continue
            try:
                await self._pipeline.run((b"PUBLISH", self._own, b""))
            except FloorcastError:
                continue


def _give_up(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(away())
