"""Batches commands: those submitted during a round trip share the next one."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from redis.exceptions import (
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from client_sdk.contract import ErrorCode
from server.brokers.redis.connection.client import CONNECTION_ERRORS, Command, RedisClient
from server.brokers.redis.connection.replies import Reply
from server.core.counters import Counters
from server.core.errors import FloorcastError, LimitError
from server.tasks import TaskOwner, cancel_and_wait

_MAX_BATCH_COMMANDS = 256
# One batch is encoded and decoded here while Redis executes the other.
_MAX_CONCURRENT_BATCHES = 2
_RETRY_AFTER_MS = 1000
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.05, 1.0
_PING: Command = (b"PING",)

# A command, its future, and whether replicas must acknowledge it.
QueuedCommand = tuple[Command, asyncio.Future[Reply], bool]


class Pipeline:
    """Runs few batches at a time; if Redis fails, all queued commands fail at once."""

    def __init__(
        self,
        client: RedisClient,
        tasks: TaskOwner,
        *,
        name: str,
        timeout_seconds: float,
        max_queued: int,
        on_change: Callable[[], None],
        replicas: int = 0,
        counters: Counters | None = None,
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._name = name
        self._counters = counters or Counters()
        self._latency = self._counters.histogram("broker.latency")
        self._timeout_seconds = timeout_seconds
        self._max_queued = max_queued
        # Called when the connection is lost and when it is back.
        self._on_change = on_change
        # How many replicas must acknowledge a durable command, and the time limit of that.
        self._replicas = replicas
        self._wait: Command = (b"WAIT", replicas, max(1, int(timeout_seconds * 1000 / 2)))
        self._reconnect_now = asyncio.Event()
        self._queue: deque[QueuedCommand] = deque()
        self._wakeup = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self.is_up = False

    async def start(self) -> None:
        """Connect; raises the connection error if Redis is unavailable."""
        async with asyncio.timeout(self._timeout_seconds):
            [pong] = await self._client.run([_PING])
        if isinstance(pong, ResponseError):
            raise pong
        self.is_up, self._stopped = True, False
        self._task = self._tasks.keep(self._run_queue, self._name)

    async def stop(self) -> None:
        """Fail everything queued and reject later commands."""
        self.is_up = False
        self._stopped = True
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
        self._fail_all(list(self._queue))
        self._queue.clear()
        await self._client.close()

    async def reconnect(self) -> None:
        """Leave the server, which may not be the master any more, and find the master."""
        if self.is_up:
            await self._on_connection_lost([])
        self._reconnect_now.set()

    async def run(self, command: Command, *, durable: bool = False) -> Reply:
        """Run one command; raises `FloorcastError` if Redis rejects it or is unavailable.

        If `durable`, also if too few replicas acknowledge it in time: the outcome is unknown then.
        """
        return await self.submit(command, durable=durable)

    def submit(self, command: Command, *, durable: bool = False) -> asyncio.Future[Reply]:
        """Queue one command and return its future; raises at once if unavailable or overloaded."""
        if not self.is_up:
            raise self._unavailable_error()
        if len(self._queue) >= self._max_queued:
            raise LimitError(
                ErrorCode.SERVER_OVERLOADED,
                "too many commands are queued for the broker",
                retry_after_ms=_RETRY_AFTER_MS,
            )
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._queue.append((command, future, durable and self._replicas > 0))
        self._wakeup.set()
        return future

    def submit_unchecked(self, command: Command) -> None:
        """Queue a command whose outcome does not matter; a no-op if Redis is unavailable."""
        with contextlib.suppress(FloorcastError):
            self.submit(command).add_done_callback(_ignore_outcome)

    async def _run_queue(self) -> None:
        queue = self._queue
        max_in_flight = _MAX_CONCURRENT_BATCHES if self._client.can_overlap else 1
        in_flight: set[asyncio.Task[None]] = set()
        try:
            while True:
                await self._wakeup.wait()
                self._wakeup.clear()
                while queue and self.is_up:
                    batch = [queue.popleft() for _ in range(min(_MAX_BATCH_COMMANDS, len(queue)))]
                    running = self._tasks.start(self._run_batch(batch), f"{self._name}-batch")
                    in_flight.add(running)
                    if len(in_flight) >= max_in_flight:
                        _, in_flight = await asyncio.wait(
                            in_flight, return_when=asyncio.FIRST_COMPLETED
                        )
                if not self.is_up:
                    if in_flight:
                        _, in_flight = await asyncio.wait(in_flight)
                    await self._reconnect()
        finally:
            for running in in_flight:
                running.cancel()

    async def _run_batch(self, batch: list[QueuedCommand]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                replies, replicated = await self._run_commands(
                    [command for command, *_ in batch], durable=any(each[2] for each in batch)
                )
        except CONNECTION_ERRORS:
            await self._on_connection_lost(batch)
            return
        except Exception:
            # redis-py failed in an unknown way: the owner of the task logs it.
            await self._on_connection_lost(batch)
            raise
        except BaseException:
            # Cancelled: the outcome is unknown.
            self._fail_all(batch)
            raise
        self._latency.observe(loop.time() - began)
        demoted = False
        for (_, future, durable), reply in zip(batch, replies, strict=True):
            if future.done():
                continue
            if isinstance(reply, ResponseError):
                self._counters.add("broker.errors")
                demoted = demoted or isinstance(reply, ReadOnlyError | MasterDownError)
                future.set_exception(_translate(reply))
            elif durable and not replicated:
                self._counters.add("broker.errors")
                future.set_exception(_not_replicated())
            else:
                future.set_result(reply)
        if demoted:
            # This server became a replica: reconnecting finds the new master.
            await self._on_connection_lost([])

    async def _run_commands(
        self, commands: list[Command], *, durable: bool
    ) -> tuple[list[Reply], bool]:
        """The replies, and whether enough replicas have what was written."""
        # In the same exchange: on another connection WAIT would not cover these commands.
        suffix = [self._wait] if durable else []
        replies = await self._client.run([*commands, *suffix])
        replicated = not durable or self._is_enough(replies.pop())
        unloaded = [i for i, each in enumerate(replies) if isinstance(each, NoScriptError)]
        if unloaded:
            # The scripts were flushed, or a new master never had them.
            await self._client.load()
            retried = await self._client.run([*(commands[i] for i in unloaded), *suffix])
            replicated = (not durable or self._is_enough(retried.pop())) and replicated
            for i, reply in zip(unloaded, retried, strict=True):
                replies[i] = reply
        return replies, replicated

    def _is_enough(self, replicas: Reply) -> bool:
        return isinstance(replicas, int) and replicas >= self._replicas

    async def _on_connection_lost(self, batch: list[QueuedCommand]) -> None:
        self.is_up = False
        self._counters.add("broker.disconnects")
        self._counters.add("broker.errors", len(batch) + len(self._queue))
        self._fail_all([*batch, *self._queue])
        self._queue.clear()
        self._wakeup.set()
        self._on_change()
        await self._client.close()

    async def _reconnect(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self.is_up:
            self._reconnect_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._reconnect_now.wait()
            pause = min(pause * 2, _LAST_PAUSE_SECONDS)
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    [pong] = await self._client.run([_PING])
            except CONNECTION_ERRORS:
                continue
            self.is_up = not isinstance(pong, ResponseError)
        self._counters.add("broker.reconnects")
        self._on_change()

    def _fail_all(self, batch: list[QueuedCommand]) -> None:
        for _, future, _ in batch:
            if not future.done():
                future.set_exception(self._unavailable_error())

    def _unavailable_error(self) -> FloorcastError:
        if self._stopped:
            return FloorcastError(ErrorCode.SERVER_DRAINING, "the broker has stopped")
        return broker_unavailable()


def _ignore_outcome(future: asyncio.Future[Reply]) -> None:
    if not future.cancelled():
        # Marks an error as seen.
        future.exception()


def broker_unavailable() -> FloorcastError:
    """The error for calls made while Redis is down."""
    return FloorcastError(
        ErrorCode.SERVER_OVERLOADED,
        "the broker is unavailable: retry later",
        retry_after_ms=_RETRY_AFTER_MS,
    )


def _not_replicated() -> FloorcastError:
    """The outcome is unknown: the message is kept unless the server fails now."""
    return FloorcastError(
        ErrorCode.SERVER_OVERLOADED,
        "too few replicas acknowledged the message: retry under the same id",
        retry_after_ms=_RETRY_AFTER_MS,
    )


def _translate(error: ResponseError) -> FloorcastError:
    """Translate an error of Redis without its text, which may quote the published data."""
    if isinstance(error, OutOfMemoryError):
        return FloorcastError(
            ErrorCode.SERVER_OVERLOADED,
            "the broker is out of memory",
            retry_after_ms=_RETRY_AFTER_MS,
        )
    return FloorcastError(
        ErrorCode.SERVER_OVERLOADED,
        "the broker rejected the command",
        retry_after_ms=_RETRY_AFTER_MS,
    )
