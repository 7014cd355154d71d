"""Async iterators over a reader's items, and tasks that call a function for each item."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from client_sdk.connection.failures import FailureLog
from client_sdk.contract import Position
from client_sdk.errors import FloorcastError
from client_sdk.reading.readers import Reader

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
ReaderT = TypeVar("ReaderT", bound=Reader[Any])


class ReaderHandle(Generic[ReaderT]):
    """Owns a reader; leaving, closing or dropping the handle ends the reader's subscription."""

    def __init__(self, reader: ReaderT, release: Callable[[ReaderT], None]) -> None:
        self._reader = reader
        self._release = release
        self._loop = asyncio.get_running_loop()

    async def ready(self) -> None:
        """Wait until the server has replied for every topic; raises if it refused one."""
        reader = self._reader
        while not reader.is_ready and not reader.is_ended:
            await reader.wait_changed()
        if reader.error is not None:
            raise reader.error.clone()

    def close(self) -> None:
        """End the subscription; unread items are dropped."""
        _end(self._reader, self._release)

    async def aclose(self) -> None:
        """Same as `close`, for `contextlib.aclosing`."""
        self.close()

    async def __aenter__(self) -> Self:
        try:
            await self.ready()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # `break` leaves a loop without closing; and the last reference can drop in any thread.
        if not self._reader.is_ended and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_end, self._reader, self._release)


def _end(reader: ReaderT, release: Callable[[ReaderT], None]) -> None:
    reader.end()
    release(reader)


class MessageStream(ReaderHandle[Reader[Any]], Generic[ItemT]):
    """An async iterator of messages, with gaps where some are missing.

    Leaving its loop, closing or dropping it ends its subscription. `async with` waits until the
    server has replied for every topic, and closes it at the end.
    """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        reader = self._reader
        while True:
            item = reader.take()
            if item is not None:
                return cast(ItemT, item)
            if reader.is_ended:
                if reader.error is not None:
                    raise reader.error.clone()
                raise StopAsyncIteration
            await reader.wait_changed()

    @property
    def checkpoint(self) -> dict[str, Position]:
        """The position in each topic up to which its items were read: a later `since`."""
        return self._reader.checkpoint

    def position(self, topic: str) -> Position | None:
        """This stream's position in a topic or session, unread messages included."""
        return self._reader.position(topic)


OnItem = Callable[[Any], Awaitable[None] | None]


class ClosableStream(Protocol):
    """A stream that its consumer can end."""

    def __aiter__(self) -> AsyncIterator[Any]: ...

    def close(self) -> None: ...


class Callback:
    """A function that is called for each item; `close` stops that."""

    def __init__(self, stream: ClosableStream, function: OnItem, owner: "Callbacks") -> None:
        self._stream = stream
        self._function = function
        self._failures = FailureLog(logger, "a callback")
        # The error that ended the stream; None if it runs or was closed.
        self.error: FloorcastError | None = None
        self.task = asyncio.create_task(self._run(), name="floorcast-callback")
        # Not in `_run`: a task that is cancelled before its first step never runs any code.
        self.task.add_done_callback(lambda task: owner.forget(self))

    def close(self) -> None:
        """Stop calling the function."""
        self._stream.close()
        self.task.cancel()

    async def _run(self) -> None:
        try:
            async for item in self._stream:
                await self._call(item)
        except FloorcastError as error:
            self.error = error
            logger.warning("the stream of a callback ended: %s", error, extra={"code": error.code})

    async def _call(self, item: object) -> None:
        try:
            result = self._function(item)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            # An edge: a user's callback must not end its stream.
            self._failures.record(error)


class Callbacks:
    """The running callbacks of one part of a client."""

    def __init__(self) -> None:
        self._running: set[Callback] = set()

    def start(self, stream: ClosableStream, function: OnItem) -> Callback:
        """Call a function for each item of a stream."""
        callback = Callback(stream, function, self)
        self._running.add(callback)
        return callback

    def forget(self, callback: Callback) -> None:
        """Drop a callback whose task has ended."""
        self._running.discard(callback)

    async def close(self) -> None:
        """End all of them; does not wait for a callback that closes the client itself."""
        current = asyncio.current_task()
        ending = [each for each in self._running if each.task is not current]
        for each in ending:
            each.close()
        if ending:
            await asyncio.wait([each.task for each in ending])
