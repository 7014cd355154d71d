"""Blocking iterators over streams, events and books; each item is fetched on demand."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from client_sdk.contract import Position
from client_sdk.errors import ClientClosed, FloorcastError
from client_sdk.market.book import BookView
from client_sdk.market.live_book import BookState, BookStatus, LiveBook
from client_sdk.reading.streams import Callback, MessageStream
from client_sdk.sync.portal import Portal

ItemT = TypeVar("ItemT")
ItemT_co = TypeVar("ItemT_co", covariant=True)
ResultT = TypeVar("ResultT")


class ClosableItems(Protocol[ItemT_co]):
    """An async iterator that can be closed."""

    async def __anext__(self) -> ItemT_co: ...

    def close(self) -> None: ...


class SyncIterator(Generic[ItemT]):
    """A blocking iterator; it ends when it or the client is closed."""

    def __init__(self, portal: Portal, items: ClosableItems[ItemT]) -> None:
        self._portal = portal
        self._items = items

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        return self.next()

    def next(self, timeout: float | None = None) -> ItemT:
        """The next item; raises `StopIteration` at the end, `TimeoutError` after `timeout` seconds.

        A timeout loses no item.
        """
        return _next(self._portal, self._items, timeout)

    def close(self) -> None:
        """End it; unread items are dropped."""
        self._portal.run(self._items.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class SyncStream(SyncIterator[ItemT]):
    """An iterator of messages; leaving its loop, closing or dropping it ends its subscription.

    `with` waits until the server has replied for every topic, and closes it at the end.
    """

    def __init__(self, portal: Portal, stream: MessageStream[ItemT]) -> None:
        super().__init__(portal, stream)
        self._stream = stream

    @property
    def checkpoint(self) -> dict[str, Position]:
        """The position in each topic up to which its items were read: a later `since`."""
        return self._portal.run(lambda: self._stream.checkpoint)

    def position(self, topic: str) -> Position | None:
        """This stream's position in a topic or session, unread messages included."""
        return self._portal.run(lambda: self._stream.position(topic))

    def ready(self, timeout: float | None = None) -> None:
        """Wait until the server has replied for every topic; raises if it refused one.

        Raises `TimeoutError` after `timeout` seconds.
        """
        self._portal.call(within(timeout, self._stream.ready()))

    def __enter__(self) -> Self:
        self._portal.call(self._stream.__aenter__())
        return self


class SyncBook(BookView):
    """`with` waits for the first state; a loop yields a `BookState` after each change.

    A change of the status counts too.
    """

    def __init__(self, portal: Portal, book: LiveBook) -> None:
        self._portal = portal
        self._book = book

    @property
    def now(self) -> BookState:
        """A copy of the book as it is now."""
        return self._portal.run(lambda: self._book.now)

    @property
    def symbol(self) -> str:
        """The symbol of this book."""
        return self._book.symbol

    @property
    def status(self) -> BookStatus:
        """The reliability of the book now."""
        return self._portal.run(lambda: self._book.status)

    @property
    def resyncs(self) -> int:
        """How often the book was out of step and needed a snapshot."""
        return self._portal.run(lambda: self._book.resyncs)

    def ready(self, timeout: float | None = None) -> None:
        """Wait until the server has replied; raises if it refused.

        Raises `TimeoutError` after `timeout` seconds.
        """
        self._portal.call(within(timeout, self._book.ready()))

    def close(self) -> None:
        """End its subscription."""
        self._portal.run(self._book.close)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BookState:
        return self.next()

    def next(self, timeout: float | None = None) -> BookState:
        """The next state; raises `StopIteration` at the end, `TimeoutError` after `timeout`."""
        return _next(self._portal, self._book, timeout)

    def __enter__(self) -> Self:
        self._portal.call(self._book.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, getter: Callable[[BookView], ResultT]) -> ResultT:
        return self._portal.run(lambda: getter(self._book))


class SyncCallback:
    """A function that is called on the thread for callbacks; `close` stops that."""

    def __init__(self, portal: Portal, callback: Callback) -> None:
        self._portal = portal
        self._callback = callback

    @property
    def error(self) -> FloorcastError | None:
        """The error that ended the stream; None if it runs or was closed."""
        return self._callback.error

    def close(self) -> None:
        """Stop calling the function."""
        self._portal.run(self._callback.close)


async def within(timeout: float | None, work: Awaitable[ResultT]) -> ResultT:
    """Await this for at most `timeout` seconds; raises `TimeoutError`."""
    async with asyncio.timeout(timeout):
        return await work


def _next(portal: Portal, items: ClosableItems[ItemT], timeout: float | None) -> ItemT:
    async def next_item() -> ItemT:
        # In the loop: a result that arrives with the timeout is not dropped.
        async with asyncio.timeout(timeout):
            return await items.__anext__()

    try:
        return portal.call(next_item())
    except (StopAsyncIteration, ClientClosed):
        raise StopIteration from None
