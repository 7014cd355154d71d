"""Hands notifications to who wants them, and tells the server which were read."""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable

from client_sdk.connection.packets import Packet
from client_sdk.connection.wire import Connection
from client_sdk.contract import Notification
from client_sdk.errors import FloorcastError
from client_sdk.reading.callbacks import OnItem

logger = logging.getLogger(__name__)

# Critical ones come again on the next connection, so that none of those is lost here.
_MAX_QUEUED = 1000


class Notifications:
    """One task calls the functions, one notification after the other."""

    def __init__(self, namespace: str) -> None:
        self._name = namespace
        self._callbacks: list[OnItem] = []
        self._queue: deque[tuple[Notification, int | None, Connection]] = deque(maxlen=_MAX_QUEUED)
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add_callback(self, callback: OnItem) -> Callable[[], None]:
        """Call a function for each; what it returns ends that."""
        self._callbacks.append(callback)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="floorcast-notices")

        def end() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return end

    def receive(self, wire: Connection, packet: Packet) -> None:
        """One has come; without anybody who wants it, it is not acknowledged either."""
        notice = Notification.model_validate_json(packet.body)
        if self._callbacks:
            self._queue.append((notice, packet.ack_id, wire))
            self._woken.set()

    async def close(self) -> None:
        """End the task."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._queue:
                notice, number, wire = self._queue.popleft()
                if await self._deliver(notice) and number is not None:
                    await self._acknowledge(wire, number)

    async def _deliver(self, notice: Notification) -> bool:
        told = True
        for callback in tuple(self._callbacks):
            try:
                result = callback(notice)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                # An edge: what a user's callback does must not end the task.
                logger.exception("a callback for notifications failed")
                told = False
        return told

    async def _acknowledge(self, wire: Connection, number: int) -> None:
        try:
            await wire.acknowledge(self._name, number)
        except (FloorcastError, TimeoutError):
            logger.debug("could not acknowledge: it will come again")
