"""An order book that keeps itself right: fetched anew whenever it cannot be sure of itself."""

from collections.abc import Callable
from enum import StrEnum
from typing import Self, TypeVar, cast

from client_sdk.contract import FeedState
from client_sdk.errors import ServerUnavailable
from client_sdk.market.book import Book
from client_sdk.market.quotes import BookView
from client_sdk.market.subscriptions import Subscriptions
from client_sdk.models import BookMessage, MarketMessage
from client_sdk.reading.base import ReaderHandle
from client_sdk.reading.gaps import GapTracker
from client_sdk.reading.readers import Reader, TopicState
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


class BookReader(Reader[MarketMessage]):
    """Applies what it hears at once: nothing waits, so nothing can be too much."""

    def __init__(self, symbol: str, topic: str, subscriptions: Subscriptions, counters: Counters):
        super().__init__(1, counters, on_space=lambda listener: None)
        self._topic = topic
        self._subscriptions = subscriptions
        self.symbol = symbol
        self.book = Book(symbol)
        # Counts what may interest who looks at the book.
        self.version = 0
        self.resyncs = 0

    def apply_state(self, topic: str, state: TopicState[MarketMessage]) -> bool:
        """A lost past without a snapshot is a book in which there is nothing."""
        position = self.position(topic)
        if state.snapshot is None and position is not None and position.epoch != state.epoch:
            self.book = Book(self.symbol)
            self.version += 1
        complete = super().apply_state(topic, state)
        if state.snapshot is not None and self.position(topic) is None:
            # Asking again at once could go on like this for ever.
            raise ServerUnavailable("a snapshot differs from its checksum")
        return complete

    def _store(self, topic: str, track: GapTracker, message: MarketMessage) -> None:
        right = self.book.apply(cast(BookMessage, message))
        self.version += 1
        if right:
            track.advance(message.epoch, message.seq)
        else:
            self.resyncs += 1
            self._subscriptions.resync(self, topic)
        self._notify()


class LiveBook(ReaderHandle[BookReader], BookView):
    """`async with` waits for the first state; `async for` yields it after each change.

    A reader that is slow sees fewer, later states, and always a whole one.
    """

    def __init__(
        self, listener: BookReader, subscriptions: Subscriptions, is_online: Callable[[], bool]
    ) -> None:
        super().__init__(listener, subscriptions.remove)
        self._subscriptions = subscriptions
        self._is_online = is_online
        self._seen_version = 0

    @property
    def symbol(self) -> str:
        """Whose book it is."""
        return self._reader.symbol

    @property
    def topic(self) -> str:
        """The topic that it is kept from."""
        return self._reader.topics[0]

    @property
    def status(self) -> BookStatus:
        """How far it can be relied on now."""
        if self._reader.is_ended or not self._is_online():
            return BookStatus.OFFLINE
        if self._reader.position(self.topic) is None or self._subscriptions.is_syncing(self.topic):
            return BookStatus.SYNCING
        if self._subscriptions.feed_state(self.topic) is FeedState.STALE:
            return BookStatus.STALE
        return BookStatus.LIVE

    @property
    def resyncs(self) -> int:
        """How often it differed and was fetched anew."""
        return self._reader.resyncs

    def _read(self, getter: Callable[[Book], ResultT]) -> ResultT:
        return getter(self._reader.book)

    def __repr__(self) -> str:
        return f"<LiveBook {self.symbol} {self.status} {self.best_bid} | {self.best_ask}>"

    # --- its life

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Self:
        listener = self._reader
        while listener.version == self._seen_version:
            if listener.is_ended:
                if listener.error is not None:
                    raise listener.error.clone()
                raise StopAsyncIteration
            await listener.wait_changed()
        self._seen_version = listener.version
        return self
