"""An order book that keeps itself right: fetched anew whenever it cannot be sure of itself."""

from collections.abc import Callable
from enum import StrEnum
from typing import Self, TypeVar, cast

from client_sdk.contract import FeedState
from client_sdk.errors import ServerUnavailable
from client_sdk.market.book import Book
from client_sdk.market.quotes import Quotes
from client_sdk.market.subscriptions import Subscriptions
from client_sdk.models import BookMessage, MarketMessage
from client_sdk.reading.base import Reading
from client_sdk.reading.gaps import Track
from client_sdk.reading.readers import Listener, State
from client_sdk.stats import Counters

ResultT = TypeVar("ResultT")


class BookStatus(StrEnum):
    """How far a book can be relied on."""

    # There is no snapshot yet, or the book differed and a new one is on its way.
    SYNCING = "SYNCING"
    LIVE = "LIVE"
    # Its feed has gone silent.
    STALE = "STALE"
    # There is no connection: the levels are as they were when it was lost.
    OFFLINE = "OFFLINE"


class BookListener(Listener[MarketMessage]):
    """Applies what it hears at once: nothing waits, so nothing can be too much."""

    def __init__(self, symbol: str, topic: str, subscriptions: Subscriptions, counters: Counters):
        super().__init__(1, counters, on_room=lambda listener: None)
        self._topic = topic
        self._subscriptions = subscriptions
        self.symbol = symbol
        self.book = Book(symbol)
        # Counts what may interest who looks at the book.
        self.version = 0
        self.resyncs = 0

    def state(self, topic: str, state: State[MarketMessage]) -> bool:
        """A lost past without a snapshot is a book in which there is nothing."""
        position = self.position(topic)
        if state.snapshot is None and position is not None and position.epoch != state.epoch:
            self.book = Book(self.symbol)
            self.version += 1
        complete = super().state(topic, state)
        if state.snapshot is not None and self.position(topic) is None:
            # Asking again at once could go on like this for ever.
            raise ServerUnavailable("a snapshot differs from its checksum")
        return complete

    def _keep(self, topic: str, track: Track, message: MarketMessage) -> None:
        right = self.book.apply(cast(BookMessage, message))
        self.version += 1
        if right:
            track.move(message.epoch, message.seq)
        else:
            self.resyncs += 1
            self._subscriptions.resync(self, topic)
        self._wake()


class LiveBook(Reading[BookListener], Quotes):
    """`async with` waits for the first state; `async for` yields it after each change.

    A reader that is slow sees fewer, later states, and always a whole one.
    """

    def __init__(
        self, listener: BookListener, subscriptions: Subscriptions, is_online: Callable[[], bool]
    ) -> None:
        super().__init__(listener, subscriptions.remove)
        self._subscriptions = subscriptions
        self._is_online = is_online
        self._seen = 0

    @property
    def symbol(self) -> str:
        """Whose book it is."""
        return self._listener.symbol

    @property
    def topic(self) -> str:
        """The topic that it is kept from."""
        return self._listener.topics[0]

    @property
    def status(self) -> BookStatus:
        """How far it can be relied on now."""
        if self._listener.ended or not self._is_online():
            return BookStatus.OFFLINE
        if self._listener.position(self.topic) is None or self._subscriptions.lacks(self.topic):
            return BookStatus.SYNCING
        if self._subscriptions.feed(self.topic) is FeedState.STALE:
            return BookStatus.STALE
        return BookStatus.LIVE

    @property
    def resyncs(self) -> int:
        """How often it differed and was fetched anew."""
        return self._listener.resyncs

    def _look(self, what: Callable[[Book], ResultT]) -> ResultT:
        return what(self._listener.book)

    def __repr__(self) -> str:
        return f"<LiveBook {self.symbol} {self.status} {self.best_bid} | {self.best_ask}>"

    # --- its life

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Self:
        listener = self._listener
        while listener.version == self._seen:
            if listener.ended:
                if listener.error is not None:
                    raise listener.error.again()
                raise StopAsyncIteration
            await listener.changed()
        self._seen = listener.version
        return self
