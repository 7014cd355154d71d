"""One lock for each key, granted first come, first served."""

import asyncio
from collections import deque

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError


class FifoLocks:
    """Locks by key. At most `max_waiting` tasks wait for one key."""

    def __init__(self, *, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._queues

    async def acquire(self, key: str) -> None:
        """Wait for the lock of a key; every acquired lock must be released.

        Raises `LimitError` if too many tasks wait for this key.
        """
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque()
            return
        if len(queue) >= self._max_waiting:
            raise LimitError(
                ErrorCode.SERVER_OVERLOADED,
                "too many concurrent operations on one channel: retry later",
            )
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                # The lock was granted in the same loop iteration: pass it on.
                self.release(key)
            elif waiter in queue:
                # Not in the queue if a `release` has skipped it already.
                queue.remove(waiter)
            raise

    def release(self, key: str) -> None:
        """Pass the lock of a key to the task that has waited longest, or free it."""
        queue = self._queues[key]
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        del self._queues[key]
