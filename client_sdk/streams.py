"""What users iterate over: messages as they come, and gaps where some are missing."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from client_sdk.contract import Position
from client_sdk.listeners import Listener

ItemT = TypeVar("ItemT")


class MessageStream(Generic[ItemT]):
    """An async iterator; leaving it, closing it or dropping it ends its subscription.

    `async with` waits until the server has answered for every topic, and closes it at the end.
    """

    def __init__(self, listener: Listener[Any], release: Callable[[Listener[Any]], None]) -> None:
        self._listener = listener
        self._release = release
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        listener = self._listener
        while True:
            item = listener.take()
            if item is not None:
                return cast(ItemT, item)
            if listener.ended:
                if listener.error is not None:
                    raise listener.error.again()
                raise StopAsyncIteration
            await listener.changed()

    def position(self, topic: str) -> Position | None:
        """How far this stream has come in a topic or session, with what waits to be read."""
        return self._listener.position(topic)

    async def ready(self) -> None:
        """Wait until the server has answered for every topic; raises where it refused one."""
        while not self._listener.is_ready and not self._listener.ended:
            await self._listener.changed()
        if self._listener.error is not None:
            raise self._listener.error.again()

    def close(self) -> None:
        """End it; what was not read is dropped."""
        self._listener.end()
        self._release(self._listener)

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
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
        # `break` leaves a loop without a word; and the last to let go may be another thread.
        if not self._listener.ended and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_end, self._listener, self._release)


def _end(listener: Listener[Any], release: Callable[[Listener[Any]], None]) -> None:
    listener.end()
    release(listener)
