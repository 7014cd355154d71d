"""Publishes from any thread, for feed libraries that call back outside the event loop."""

import asyncio
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError, LimitError
from server.core.log.entries import Position
from server.services.market.publishing import PublishingService
from server.tasks import TaskOwner, cancel_and_wait

# The loop serves the clients between two batches of this size.
_MESSAGES_PER_TURN = 256


@dataclass(frozen=True, slots=True)
class _QueuedMessage:
    topic: str
    data: Mapping[str, object]
    kind: str
    user: str | None
    org: str
    identifier: str | None
    source_ts: int | None
    future: "Future[Position]"


class Publisher:
    """A bounded first-in, first-out queue into the event loop of the server."""

    def __init__(
        self, publishing: PublishingService, tasks: TaskOwner, *, max_queued: int = 10_000
    ) -> None:
        self._publishing = publishing
        self._tasks = tasks
        self._max_queued = max_queued
        self._lock = threading.Lock()
        self._queue: deque[_QueuedMessage] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._wakeup = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    async def start(self) -> None:
        """Start to accept messages."""
        self._loop = asyncio.get_running_loop()
        self._task = self._tasks.keep(self._publish_all, "floorcast-publisher")

    async def stop(self) -> None:
        """Stop accepting messages; the futures of queued messages fail with `server.draining`."""
        with self._lock:
            self._loop = None
            queued, self._queue = self._queue, deque()
        for message in queued:
            # A cancelled future accepts no exception.
            if message.future.set_running_or_notify_cancel():
                message.future.set_exception(_stopped_error())
        if self._task is not None:
            await cancel_and_wait(self._task)

    def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
        identifier: str | None = None,
        source_ts: int | None = None,
    ) -> "Future[Position]":
        """Queue a message, from any thread; the future resolves to its position or its error.

        The data is encoded later: do not change it after the call. Raises `LimitError` if the
        queue is full and `FloorcastError` if the publisher is not running.
        """
        future: Future[Position] = Future()
        with self._lock:
            loop = self._loop
            if loop is None:
                raise _stopped_error()
            if len(self._queue) >= self._max_queued:
                raise LimitError(
                    ErrorCode.SERVER_OVERLOADED,
                    "the publisher's queue is full: wait for earlier futures",
                )
            self._queue.append(
                _QueuedMessage(topic, data, kind, user, org, identifier, source_ts, future)
            )
            if len(self._queue) == 1:
                # Inside the lock: `stop` must not run before this call.
                loop.call_soon_threadsafe(self._wakeup.set)
        return future

    async def _publish_all(self) -> None:
        # After a restart there may be queued messages.
        self._wakeup.set()
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._queue:
                for _ in range(min(_MESSAGES_PER_TURN, len(self._queue))):
                    await self._publish_one()
                await asyncio.sleep(0)

    async def _publish_one(self) -> None:
        with self._lock:
            message = self._queue.popleft()
        if not message.future.set_running_or_notify_cancel():
            return
        try:
            position = await self._publishing.publish(
                message.topic,
                message.data,
                kind=message.kind,
                user=message.user,
                org=message.org,
                identifier=message.identifier,
                source_ts=message.source_ts,
            )
        except asyncio.CancelledError:
            message.future.set_exception(_stopped_error())
            raise
        except Exception as error:
            # The calling thread gets every error; later messages are still published.
            message.future.set_exception(error)
        else:
            message.future.set_result(position)


def _stopped_error() -> FloorcastError:
    return FloorcastError(ErrorCode.SERVER_DRAINING, "the server is shutting down")
