"""What scripts iterate over: streams, events and books, each item fetched when it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from client_sdk.contract import Position
from client_sdk.errors import ClientClosed, FloorcastError
from client_sdk.market.live_book import BookStatus, LiveBook
from client_sdk.market.quotes import BookView, Levels
from client_sdk.reading.callbacks import Callback
from client_sdk.streams import MessageStream
from client_sdk.sync.portal import Portal

ItemT = TypeVar("ItemT")
ItemT_co = TypeVar("ItemT_co", covariant=True)
ResultT = TypeVar("ResultT")


class ClosableItems(Protocol[ItemT_co]):
    """What is iterated over on the other side."""

    async def __anext__(self) -> ItemT_co: ...

    def close(self) -> None: ...


class SyncIterator(Generic[ItemT]):
    """An iterator that ends where the client is closed; close it to end it before."""

    def __init__(self, portal: Portal, items: ClosableItems[ItemT]) -> None:
        self._portal = portal
        self._items = items

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        try:
            return self._portal.call(_next(self._items))
        except (StopAsyncIteration, ClientClosed):
            raise StopIteration from None

    def close(self) -> None:
        """End it; what was not read is dropped."""
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
    """Messages; leaving a loop over it, closing it or dropping it ends its subscription.

    `with` waits until the server has answered for every topic, and closes it at the end.
    """

    def __init__(self, portal: Portal, stream: MessageStream[ItemT]) -> None:
        super().__init__(portal, stream)
        self._stream = stream

    def position(self, topic: str) -> Position | None:
        """How far this stream has come in a topic or session, with what waits to be read."""
        return self._portal.run(lambda: self._stream.position(topic))

    def ready(self) -> None:
        """Wait until the server has answered for every topic; raises where it refused one."""
        self._portal.call(self._stream.ready())

    def __enter__(self) -> Self:
        self._portal.call(self._stream.__aenter__())
        return self


@dataclass(frozen=True, slots=True)
class BookState:
    """One book at one moment: it goes on changing while a script looks at it."""

    symbol: str
    status: BookStatus
    bids: Levels
    asks: Levels
    # The highest price that somebody would pay, and the lowest that somebody would take.
    best_bid: Decimal | None
    best_ask: Decimal | None
    mid: Decimal | None
    position: Position | None


class SyncBook(BookView):
    """`with` waits for the first state; a loop gets a `BookState` after each change."""

    def __init__(self, portal: Portal, book: LiveBook) -> None:
        self._portal = portal
        self._book = book

    @property
    def now(self) -> BookState:
        """All of it as it is at this moment."""
        return self._portal.run(self._state)

    @property
    def symbol(self) -> str:
        """Whose book it is."""
        return self._book.symbol

    @property
    def status(self) -> BookStatus:
        """How far it can be relied on now."""
        return self._portal.run(lambda: self._book.status)

    @property
    def resyncs(self) -> int:
        """How often it differed and was fetched anew."""
        return self._portal.run(lambda: self._book.resyncs)

    def ready(self) -> None:
        """Wait until the server has answered; raises where it refused."""
        self._portal.call(self._book.ready())

    def close(self) -> None:
        """Keep it no more."""
        self._portal.run(self._book.close)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BookState:
        try:
            return self._portal.call(self._next_state())
        except (StopAsyncIteration, ClientClosed):
            raise StopIteration from None

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

    async def _next_state(self) -> BookState:
        await self._book.__anext__()
        return self._state()

    def _state(self) -> BookState:
        book = self._book
        return BookState(
            symbol=book.symbol,
            status=book.status,
            bids=book.bids,
            asks=book.asks,
            best_bid=book.best_bid,
            best_ask=book.best_ask,
            mid=book.mid,
            position=book.position,
        )

    def _read(self, getter: Callable[[BookView], ResultT]) -> ResultT:
        return self._portal.run(lambda: getter(self._book))


class SyncCallback:
    """One function that is called on the client's thread; `close` ends that."""

    def __init__(self, portal: Portal, callback: Callback) -> None:
        self._portal = portal
        self._callback = callback

    @property
    def error(self) -> FloorcastError | None:
        """Why no more items come, where that was not by `close`."""
        return self._callback.error

    def close(self) -> None:
        """Call it no more."""
        self._portal.run(self._callback.close)


async def _next(items: ClosableItems[ItemT]) -> ItemT:
    return await items.__anext__()
