"""Follows the watched channels: what is told is heard, what was missed is read, and in order."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable
from typing import TypeVar

from server.brokers.failures import FailureLog
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.pipeline import Pipeline, broker_unavailable
from server.brokers.redis.connection.wire import RedisClient
from server.brokers.redis.log.codec import decode_entry
from server.brokers.redis.log.gap_detector import GapDetector
from server.brokers.redis.log.pubsub import PubSub
from server.brokers.redis.log.reader import LogReader
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.log.entries import Entry, Position, Reset
from server.ports import ignore

T = TypeVar("T")

_MAX_CONCURRENT_READS = 64
# What Redis refuses to tell, of one channel and not of others, is asked for again so much later.
_RETRY_SECONDS = 0.25
_PROBE_SECONDS = 1.0
_ECHO_TIMEOUT_SECONDS = 2.5


class LogSubscriber:
    """Owns the listener and the two loops: one reads what is behind, one finds out who is deaf."""

    def __init__(
        self,
        client: RedisClient,
        pipeline: Pipeline,
        reader: LogReader,
        keys: Keys,
        counters: Counters,
        *,
        own_channel: bytes,
        timeout_seconds: float,
        max_entry_bytes: int,
    ) -> None:
        self._pipeline = pipeline
        self._reader = reader
        self._keys = keys
        self._counters = counters
        self._own_channel = own_channel
        self._timeout_seconds = timeout_seconds
        self._max_entry_bytes = max_entry_bytes
        self._pubsub = PubSub(
            client,
            own_channel,
            timeout_seconds=timeout_seconds,
            wanted_channels=self._wanted_channels,
            on_direct=lambda message: self._on_direct(message),
            on_message=self._on_message,
            on_subscribed=self._on_subscribed,
            on_change=self.check_connections,
        )
        self._gap_detector = GapDetector(ignore, ignore, counters.add)
        self._channels: dict[bytes, str] = {}
        self._on_state: Callable[[bool], None] = ignore
        self._on_direct: Callable[[object], None] = ignore
        self._listeners: list[tuple[Callable[[str, bytes], bool], Callable[[], None]]] = []
        self._wakeup = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failure_log = FailureLog()
        # Whether both ways to Redis are open, and nothing is behind any more.
        self.is_up = False

    async def start(
        self,
        deliver: Callable[[Entry], None],
        on_reset: Callable[[Reset], None],
        on_state: Callable[[bool], None],
    ) -> None:
        """Open both ways to Redis; raises what keeps us from it."""
        self._gap_detector = GapDetector(
            self._guard(deliver), self._guard(on_reset), self._counters.add
        )
        self._on_state = on_state
        await self._pipeline.start()
        await self._pubsub.start()
        create_task = asyncio.create_task
        self._tasks = [
            create_task(self._read_loop(), name="floorcast-broker-reader"),
            create_task(self._probe_loop(), name="floorcast-broker-probe"),
        ]
        self.check_connections()

    async def stop(self) -> None:
        """Close both ways; nothing is told any more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        await self._pubsub.stop()
        await self._pipeline.stop()
        self._channels.clear()
        self._on_state = ignore

    def add_listener(
        self, on_message: Callable[[str, bytes], bool], on_up: Callable[[], None]
    ) -> None:
        """Hear what is told to watched channels and is no entry; `on_said` says whether it knows.

        `on_up` is called whenever something may have been missed, once that is over.
        """
        self._listeners.append((on_message, on_up))

    def set_direct_handler(self, on_direct: Callable[[object], None]) -> None:
        """Hear what another node says to this one alone."""
        self._on_direct = on_direct

    def __contains__(self, channel: object) -> bool:
        """Whether the channel is watched."""
        return channel in self._gap_detector

    async def watch(self, channel: str) -> None:
        """Deliver everything that comes of the channel after this has returned."""
        # What was asked last holds, and is settled here, before anything waits.
        watch = self._gap_detector.add(channel)
        if watch.position is not None:
            return
        spoken = self._keys.base(channel)
        self._channels[spoken] = channel
        self._pubsub.subscribe(spoken)
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watch.ready_waiters.append(settled)
        if not self.is_up:
            raise broker_unavailable()
        await self._wait(settled)

    async def unwatch(self, channel: str) -> None:
        """Deliver no more of it."""
        if channel not in self._gap_detector:
            return
        self._gap_detector.drop(channel)
        spoken = self._keys.base(channel)
        del self._channels[spoken]
        self._pubsub.unsubscribe(spoken)

    async def wait_until(self, channel: str, target: Position) -> None:
        """Wait until so much of the channel was delivered, where it is watched."""
        await self._wait(self._gap_detector.wait_until(channel, target))

    def check_connections(self) -> None:
        """Something has gone, or is back."""
        if not (self._pipeline.is_up and self._pubsub.is_up):
            self._set_state(False)
        if not self._pubsub.is_up:
            for channel in self._gap_detector.channels():
                self._gap_detector.suspect(channel)
        self._wakeup.set()

    def _guard(self, callback: Callable[[T], None]) -> Callable[[T], None]:
        """What fails there is not ours: the next entry is told all the same."""

        def told(what: T) -> None:
            try:
                callback(what)
            except Exception as failure:
                self._failure_log.report(failure)

        return told

    async def _wait(self, done: asyncio.Future[None] | None) -> None:
        if done is None:
            return
        # Not `asyncio.timeout`: a handler runs without a task until it waits for the first time.
        loop = asyncio.get_running_loop()
        limit = loop.call_later(self._timeout_seconds, _time_out, done)
        try:
            await done
        finally:
            limit.cancel()

    def _wanted_channels(self) -> Iterable[bytes]:
        return tuple(self._channels)

    def _on_message(self, spoken: bytes, message: object) -> None:
        channel = self._channels.get(spoken)
        if channel is None:
            return
        entry = decode_entry(channel, message, self._max_entry_bytes)
        if entry is None:
            if not self._offer_to_listeners(channel, message):
                self._counters.add("broker.strange")
        elif self._gap_detector.receive(entry):
            self._wakeup.set()

    def _offer_to_listeners(self, channel: str, message: object) -> bool:
        if not isinstance(message, bytes) or len(message) > self._max_entry_bytes:
            return False
        return any(on_said(channel, message) for on_said, _ in self._listeners)

    def _on_subscribed(self, spoken: bytes) -> None:
        channel = self._channels.get(spoken)
        if channel is not None:
            self._gap_detector.suspect(channel)
            self._wakeup.set()

    def _set_state(self, up: bool) -> None:
        if self.is_up != up:
            self.is_up = up
            if not up:
                self._counters.add("broker.lost")
            self._on_state(up)
            if up:
                for _, on_up in self._listeners:
                    on_up()

    async def _read_loop(self) -> None:
        while True:
            waits = self._gap_detector.behind and self._pipeline.is_up
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_SECONDS if waits else None):
                    await self._wakeup.wait()
            self._wakeup.clear()
            await self._read_behind()
            if self._pipeline.is_up and self._pubsub.is_up:
                self._set_state(True)

    async def _read_behind(self) -> None:
        """Bring what is behind up to the log, each once where that is refused."""
        refused: set[str] = set()
        while self._pipeline.is_up:
            behind = (each for each in self._gap_detector.behind if each not in refused)
            some = tuple(itertools.islice(behind, _MAX_CONCURRENT_READS))
            if not some:
                return
            told = await asyncio.gather(*map(self._catch_up, some))
            refused.update(
                channel for channel, is_told in zip(some, told, strict=True) if not is_told
            )

    async def _catch_up(self, channel: str) -> bool:
        watch = self._gap_detector.get(channel)
        if watch is None:
            return True
        known = watch.position
        try:
            reading = await self._reader.read(channel, known, state=known is not None)
        except FloorcastError:
            # It stays behind until Redis is back, or lets us read it again.
            return False
        self._gap_detector.apply_read(channel, known, reading)
        return True

    async def _probe_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            if not (self._pipeline.is_up and self._pubsub.is_up):
                continue
            if loop.time() - self._pubsub.last_echo_at > _ECHO_TIMEOUT_SECONDS:
                self._counters.add("broker.deaf")
                await self._pubsub.reopen()
                continue
            try:
                await self._pipeline.run((b"PUBLISH", self._own_channel, b""))
            except FloorcastError:
                continue


def _time_out(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(broker_unavailable())
