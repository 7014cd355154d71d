"""What every reader of the server's messages has in common: it waits to be let in, and ends."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from client_sdk.reading.readers import Reader

ReaderT = TypeVar("ReaderT", bound=Reader[Any])


class ReaderHandle(Generic[ReaderT]):
    """Leaving it, closing it or dropping it ends its subscription."""

    def __init__(self, listener: ReaderT, release: Callable[[ReaderT], None]) -> None:
        self._reader = listener
        self._release = release
        self._loop = asyncio.get_running_loop()

    async def ready(self) -> None:
        """Wait until the server has answered for all of it; raises where it refused."""
        listener = self._reader
        while not listener.is_ready and not listener.is_ended:
            await listener.wait_changed()
        if listener.error is not None:
            raise listener.error.clone()

    def close(self) -> None:
        """End it; what was not read is dropped."""
        _end(self._reader, self._release)

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
        if not self._reader.is_ended and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_end, self._reader, self._release)


def _end(listener: ReaderT, release: Callable[[ReaderT], None]) -> None:
    listener.end()
    release(listener)
