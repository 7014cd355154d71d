"""One task that asks the server until it does what is wanted, on whatever connection there is."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from client_sdk.connection.namespaces import Namespace
from client_sdk.errors import FloorcastError, NotConnected, is_retryable

logger = logging.getLogger(__name__)

# Where the server does not say when to try again.
_RETRY_SECONDS = 1.0


class Worker:
    """Runs a round after each `wake`, while its namespace is joined; again where it failed."""

    def __init__(
        self, name: str, namespace: Namespace, work: Callable[[], Awaitable[None]]
    ) -> None:
        self._name = name
        self._namespace = namespace
        self._work = work
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def wake(self) -> None:
        """There is something to do; the first time starts the task."""
        self._woken.set()
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run(), name=f"floorcast-{self._name}")

    async def close(self) -> None:
        """End it; what was not done stays undone."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self._namespace.wait_joined()
            except FloorcastError:
                # It never will be; whoever waits was told by the namespace.
                return
            try:
                await self._work()
            except FloorcastError as error:
                self._woken.set()
                if not isinstance(error, NotConnected):
                    await self._wait_before_retry(error)

    async def _wait_before_retry(self, error: FloorcastError) -> None:
        logger.info("asking again later", extra={"worker": self._name, "code": error.code})
        seconds = _RETRY_SECONDS if is_retryable(error) else 10 * _RETRY_SECONDS
        if error.retry_after_ms is not None:
            seconds = error.retry_after_ms / 1000
        # What one connection refused is asked for at once on the next.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._namespace.wait_lost()
