"""Calls a user's function for each item of a stream, in a task that its owner ends."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from client_sdk.errors import FloorcastError

logger = logging.getLogger(__name__)

OnItem = Callable[[Any], Awaitable[None] | None]


class ClosableStream(Protocol):
    """A stream that can be ended."""

    def __aiter__(self) -> AsyncIterator[Any]: ...

    def close(self) -> None: ...


class Callback:
    """One function that is called; `close` ends that."""

    def __init__(self, stream: ClosableStream, function: OnItem, owner: "Callbacks") -> None:
        self._stream = stream
        self._function = function
        # Why no more items come, where that was not by `close`.
        self.error: FloorcastError | None = None
        self.task = asyncio.create_task(self._run(), name="floorcast-callback")
        # Not at the end of the task's own code: one that is cancelled early never runs any.
        self.task.add_done_callback(lambda task: owner.forget(self))

    def close(self) -> None:
        """Call it no more."""
        self._stream.close()
        self.task.cancel()

    async def _run(self) -> None:
        try:
            async for item in self._stream:
                await self._call(item)
        except FloorcastError as error:
            self.error = error
            logger.warning("a callback is called no more", extra={"code": error.code})

    async def _call(self, item: object) -> None:
        try:
            result = self._function(item)
            if inspect.isawaitable(result):
                await result
        except Exception:
            # An edge: what a user's callback does must not end its stream.
            logger.exception("a callback failed")


class Callbacks:
    """Those of one part of a client."""

    def __init__(self) -> None:
        self._running: set[Callback] = set()

    def start(self, stream: ClosableStream, function: OnItem) -> Callback:
        """Call a function for each item."""
        callback = Callback(stream, function, self)
        self._running.add(callback)
        return callback

    def forget(self, callback: Callback) -> None:
        """One has ended."""
        self._running.discard(callback)

    async def close(self) -> None:
        """End all of them; who closes the client from inside a callback is not waited for."""
        tasks = [each.task for each in self._running if each.task is not asyncio.current_task()]
        for each in tuple(self._running):
            if each.task in tasks:
                each.close()
        if tasks:
            await asyncio.wait(tasks)
