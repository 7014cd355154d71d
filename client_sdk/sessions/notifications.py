"""Gives notifications to the user's functions, and acknowledges the critical ones."""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable

from client_sdk.connection.failures import FailureLog
from client_sdk.connection.packets import Packet
from client_sdk.connection.websocket import Connection
from client_sdk.contract import Notification
from client_sdk.errors import FloorcastError
from client_sdk.reading.streams import OnItem

logger = logging.getLogger(__name__)

# The server sends unacknowledged critical ones again, so dropping the oldest loses none of them.
_MAX_QUEUED = 1000


class Notifications:
    """One task that calls the functions, one notification at a time."""

    def __init__(self, namespace: str) -> None:
        self._name = namespace
        self._callbacks: list[OnItem] = []
        self._failures = FailureLog(logger, "a notification callback")
        self._queue: deque[tuple[Notification, int | None, Connection]] = deque(maxlen=_MAX_QUEUED)
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add_callback(self, callback: OnItem) -> Callable[[], None]:
        """Call a function for each notification; call the returned function to stop."""
        self._callbacks.append(callback)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="floorcast-notices")

        def remove() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return remove

    def receive(self, connection: Connection, packet: Packet) -> None:
        """Queue a notification; without callbacks it is dropped and not acknowledged."""
        notification = Notification.model_validate_json(packet.body)
        if self._callbacks:
            self._queue.append((notification, packet.ack_id, connection))
            self._woken.set()

    async def close(self) -> None:
        """End its task."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._queue:
                notification, ack_id, connection = self._queue.popleft()
                if await self._deliver(notification) and ack_id is not None:
                    await self._acknowledge(connection, ack_id)

    async def _deliver(self, notification: Notification) -> bool:
        """Call all functions; False if one of them failed."""
        succeeded = True
        for callback in tuple(self._callbacks):
            try:
                result = callback(notification)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:
                # An edge: a user's callback must not end the task.
                self._failures.record(error)
                succeeded = False
        return succeeded

    async def _acknowledge(self, connection: Connection, ack_id: int) -> None:
        try:
            await connection.acknowledge(self._name, ack_id)
        except (FloorcastError, TimeoutError):
            logger.debug("acknowledging a notification failed; the server sends it again")
