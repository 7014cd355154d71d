"""Publishing from any thread: a feed library's callback need not know of the event loop."""

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

# So many in one turn of the loop; the clients are served between two turns.
_MESSAGES_PER_TURN = 256


@dataclass(frozen=True, slots=True)
class _QueuedMessage:
    topic: str
    data: Mapping[str, object]
    kind: str
    user: str | None
    org: str
    identifier: str | None
    future: "Future[Position]"


class Publisher:
    """A bounded queue into the loop that the server runs in; what is put first goes first."""

    def __init__(self, publishing: PublishingService, *, max_queued: int = 10_000) -> None:
        self._publishing = publishing
        self._max_queued = max_queued
        self._lock = threading.Lock()
        self._queue: deque[_QueuedMessage] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._wakeup = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    async def start(self) -> None:
        """Take messages from now on."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._publish_all(), name="floorcast-publisher")

    async def stop(self) -> None:
        """Take no more; what still waits is refused, so that nobody waits for ever."""
        with self._lock:
            self._loop = None
            waiting, self._queue = self._queue, deque()
        for each in waiting:
            # One that its caller gave up takes nothing any more.
            if each.future.set_running_or_notify_cancel():
                each.future.set_exception(_stopped_error())
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
        identifier: str | None = None,
    ) -> "Future[Position]":
        """Put a message into the queue; the future tells its position, or why it has none.

        Callable from any thread. The data is encoded later: do not change it any more.
        """
        future: Future[Position] = Future()
        with self._lock:
            loop = self._loop
            if loop is None:
                raise _stopped_error()
            if len(self._queue) >= self._max_queued:
                raise LimitError(ErrorCode.SERVER_OVERLOADED, "too many messages wait already")
            self._queue.append(_QueuedMessage(topic, data, kind, user, org, identifier, future))
            if len(self._queue) == 1:
                # Within the lock, so that the loop cannot be gone in between.
                loop.call_soon_threadsafe(self._wakeup.set)
        return future

    async def _publish_all(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._queue:
                for _ in range(min(_MESSAGES_PER_TURN, len(self._queue))):
                    await self._publish_one()
                await asyncio.sleep(0)

    async def _publish_one(self) -> None:
        with self._lock:
            each = self._queue.popleft()
        if not each.future.set_running_or_notify_cancel():
            return
        try:
            position = await self._publishing.publish(
                each.topic,
                each.data,
                kind=each.kind,
                user=each.user,
                org=each.org,
                identifier=each.identifier,
            )
        except asyncio.CancelledError:
            each.future.set_exception(_stopped_error())
            raise
        except Exception as error:
            # An edge: whatever went wrong belongs to the thread that asked, and the rest goes on.
            each.future.set_exception(error)
        else:
            each.future.set_result(position)


def _stopped_error() -> FloorcastError:
    return FloorcastError(ErrorCode.SERVER_DRAINING, "the server is going down")
