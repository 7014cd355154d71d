"""Subscribes to watched channels and delivers their entries in order, without gaps."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable

from server.brokers.failure_log import FailureLog
from server.brokers.redis.connection.client import RedisClient
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.pipeline import Pipeline, broker_unavailable
from server.brokers.redis.log.codec import decode_entry
from server.brokers.redis.log.gap_detector import GapDetector
from server.brokers.redis.log.pubsub import PubSub
from server.brokers.redis.log.reader import LogReader
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.log.entries import Entry, Position, Reset
from server.ports import ignore
from server.tasks import TaskOwner, cancel_and_wait

# What a direct message begins with that answers a question.
ANSWER_PREFIX = b"answer:"
_MAX_CONCURRENT_READS = 64
# The delay before a failed read of one channel is retried.
_RETRY_SECONDS = 0.25
_PROBE_SECONDS = 1.0
_ECHO_TIMEOUT_SECONDS = 2.5


class LogSubscriber:
    """Owns the pub/sub connection, a loop that reads channels behind, and a probe of pub/sub."""

    def __init__(
        self,
        client: RedisClient,
        pipeline: Pipeline,
        reader: LogReader,
        keys: Keys,
        counters: Counters,
        tasks: TaskOwner,
        *,
        own_channel: bytes,
        timeout_seconds: float,
        max_entry_bytes: int,
    ) -> None:
        self._pipeline = pipeline
        self._reader = reader
        self._keys = keys
        self._counters = counters
        self._task_owner = tasks
        self._own_channel = own_channel
        self._timeout_seconds = timeout_seconds
        self._max_entry_bytes = max_entry_bytes
        self._pubsub = PubSub(
            client,
            own_channel,
            tasks,
            timeout_seconds=timeout_seconds,
            wanted_channels=self._wanted_channels,
            on_direct=self._on_direct_message,
            on_message=self._on_message,
            on_subscribed=self._on_subscribed,
            on_change=self.check_connections,
        )
        self._gap_detector = GapDetector(self._on_entry, self._on_gap, counters.add)
        self._deliver: Callable[[Entry], None] = ignore
        self._on_reset: Callable[[Reset], None] = ignore
        self._channels: dict[bytes, str] = {}
        self._on_state: Callable[[bool], None] = ignore
        self._on_direct: Callable[[object], None] = ignore
        self._on_answer: Callable[[bytes], None] = ignore
        self._listeners: list[tuple[Callable[[str, bytes], bool], Callable[[], None]]] = []
        self._wakeup = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failure_log = FailureLog()
        # Whether both connections are open and no channel is behind.
        self.is_up = False

    async def start(
        self,
        deliver: Callable[[Entry], None],
        on_reset: Callable[[Reset], None],
        on_state: Callable[[bool], None],
    ) -> None:
        """Open both connections; raises the connection error if Redis is unavailable."""
        self._deliver, self._on_reset = deliver, on_reset
        self._on_state = on_state
        await self._pipeline.start()
        await self._pubsub.start()
        self._tasks = [
            self._task_owner.keep(self._read_loop, "floorcast-broker-reader"),
            self._task_owner.keep(self._probe_loop, "floorcast-broker-probe"),
        ]
        self.check_connections()

    async def stop(self) -> None:
        """Close both connections; nothing is delivered afterwards."""
        await cancel_and_wait(*self._tasks)
        self._tasks.clear()
        await self._pubsub.stop()
        await self._pipeline.stop()
        self._channels.clear()
        for channel in self._gap_detector.channels():
            self._gap_detector.drop(channel)
        self._on_state = ignore

    async def reconnect(self) -> None:
        """Leave the server, which may not be the master any more."""
        self._pubsub.reopen()
        await self._pipeline.reconnect()

    def add_listener(
        self, on_message: Callable[[str, bytes], bool], on_up: Callable[[], None]
    ) -> None:
        """Receive the messages of watched channels that are not entries.

        `on_message` returns whether it handled the message. `on_up` is called after an interruption
        in which messages may have been lost.
        """
        self._listeners.append((on_message, on_up))

    def set_direct_handler(self, on_direct: Callable[[object], None]) -> None:
        """Set the callback for messages that other nodes send to this one."""
        self._on_direct = on_direct

    def set_answer_handler(self, on_answer: Callable[[bytes], None]) -> None:
        """Set the callback for the answers of other nodes to a question of this one."""
        self._on_answer = on_answer

    def __contains__(self, channel: object) -> bool:
        """Whether this node watches the channel."""
        return channel in self._gap_detector

    async def watch(self, channel: str) -> None:
        """Start delivery of a channel; returns once no later entry can be missed."""
        # Before the first await: of overlapping calls the last one wins.
        watched = self._gap_detector.add(channel)
        if watched.position is not None:
            return
        base = self._keys.base(channel)
        self._channels[base] = channel
        self._pubsub.subscribe(base)
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watched.ready_waiters.append(ready)
        if not self.is_up:
            raise broker_unavailable()
        await self._wait(ready)

    async def unwatch(self, channel: str) -> None:
        """Stop delivery of a channel."""
        if channel not in self._gap_detector:
            return
        self._gap_detector.drop(channel)
        base = self._keys.base(channel)
        del self._channels[base]
        self._pubsub.unsubscribe(base)

    async def wait_until(self, channel: str, target: Position) -> None:
        """Wait until a watched channel is delivered up to a position; no-op for others."""
        await self._wait(self._gap_detector.wait_until(channel, target))

    def check_connections(self) -> None:
        """Update the state after a connection was lost or is back."""
        if not (self._pipeline.is_up and self._pubsub.is_up):
            self._set_state(False)
        if not self._pubsub.is_up:
            for channel in self._gap_detector.channels():
                self._gap_detector.suspect(channel)
        self._wakeup.set()

    def _on_entry(self, entry: Entry) -> None:
        try:
            self._deliver(entry)
        except Exception as failure:
            # It must not stop later deliveries.
            self._failure_log.report(failure)

    def _on_gap(self, reset: Reset) -> None:
        try:
            self._on_reset(reset)
        except Exception as failure:
            self._failure_log.report(failure)

    async def _wait(self, done: asyncio.Future[None] | None) -> None:
        if done is None:
            return
        # Not `asyncio.timeout`: handlers run without a task until their first await.
        loop = asyncio.get_running_loop()
        limit = loop.call_later(self._timeout_seconds, _time_out, done)
        try:
            await done
        finally:
            limit.cancel()

    def _wanted_channels(self) -> Iterable[bytes]:
        return tuple(self._channels)

    def _on_message(self, base: bytes, message: object) -> None:
        channel = self._channels.get(base)
        if channel is None:
            return
        entry = decode_entry(channel, message, self._max_entry_bytes)
        if entry is None:
            if not self._offer_to_listeners(channel, message):
                self._counters.add("broker.strange")
        elif self._gap_detector.receive(entry):
            self._wakeup.set()

    def _on_direct_message(self, message: object) -> None:
        if isinstance(message, bytes) and message.startswith(ANSWER_PREFIX):
            self._on_answer(message.removeprefix(ANSWER_PREFIX))
        else:
            self._on_direct(message)

    def _offer_to_listeners(self, channel: str, message: object) -> bool:
        if not isinstance(message, bytes) or len(message) > self._max_entry_bytes:
            return False
        return any(on_message(channel, message) for on_message, _ in self._listeners)

    def _on_subscribed(self, base: bytes) -> None:
        channel = self._channels.get(base)
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
            has_pending = self._gap_detector.behind and self._pipeline.is_up
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_SECONDS if has_pending else None):
                    await self._wakeup.wait()
            self._wakeup.clear()
            await self._read_behind()
            if self._pipeline.is_up and self._pubsub.is_up:
                self._set_state(True)

    async def _read_behind(self) -> None:
        """Read all channels that are behind; a failed one only once."""
        failed: set[str] = set()
        while self._pipeline.is_up:
            behind = (each for each in self._gap_detector.behind if each not in failed)
            batch = tuple(itertools.islice(behind, _MAX_CONCURRENT_READS))
            if not batch:
                return
            read = await asyncio.gather(*map(self._catch_up, batch))
            failed.update(
                channel for channel, is_read in zip(batch, read, strict=True) if not is_read
            )

    async def _catch_up(self, channel: str) -> bool:
        watched = self._gap_detector.get(channel)
        if watched is None:
            return True
        known = watched.position
        try:
            state = await self._reader.read(channel, known, state=known is not None)
        except FloorcastError:
            # It stays behind, and is retried.
            return False
        self._gap_detector.apply_read(channel, known, state)
        return True

    async def _probe_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            if not (self._pipeline.is_up and self._pubsub.is_up):
                continue
            if loop.time() - self._pubsub.last_echo_at > _ECHO_TIMEOUT_SECONDS:
                self._counters.add("broker.deaf")
                self._pubsub.reopen()
                continue
            try:
                await self._pipeline.run((b"PUBLISH", self._own_channel, b""))
            except FloorcastError:
                continue


def _time_out(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(broker_unavailable())
