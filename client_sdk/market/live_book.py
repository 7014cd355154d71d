"""A live order book that fetches a snapshot whenever it is out of step with the server."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Protocol, Self, TypeVar, cast

from client_sdk.contract import BookMessage, FeedState, MarketMessage, Stream
from client_sdk.contract.messages import MessageClock
from client_sdk.errors import ServerUnavailable
from client_sdk.market.book import Book, BookView
from client_sdk.reading.gaps import GapTracker
from client_sdk.reading.readers import Reader, TopicState
from client_sdk.reading.streams import ReaderHandle
from client_sdk.stats import Counters

ResultT = TypeVar("ResultT")


def book_topic(symbol: str, depth: int | None, step: str | Decimal | None) -> str:
    """The topic of a book: whole, or of so many levels, or grouped by a step of the price."""
    topic = f"{Stream.ORDERBOOK}:{symbol}"
    if depth is None:
        if step is not None:
            raise ValueError("a book grouped by `step` needs a `depth`")
        return topic
    if step is None:
        return f"{topic}@{depth}"
    # The server knows one spelling of a step.
    text = format(Decimal(step), "f")
    return f"{topic}@{depth}/{text.rstrip('0').rstrip('.') if '.' in text else text}"


class BookStatus(StrEnum):
    """The reliability of a live book."""

    # Waiting for a snapshot: the first one, or one after a checksum mismatch.
    SYNCING = "SYNCING"
    LIVE = "LIVE"
    # In step with the server, but its feed is silent.
    STALE = "STALE"
    # No connection: the levels are from before it was lost.
    OFFLINE = "OFFLINE"


@dataclass(frozen=True, slots=True, eq=False)
class BookState(BookView):
    """A book at one moment; it never changes, except that its `age` grows.

    `ts` is the server's time of the last change in milliseconds; None before the first.
    """

    symbol: str
    status: BookStatus
    ts: int | None
    _book: Book = field(repr=False)
    _clock: MessageClock = field(repr=False)

    @property
    def age(self) -> float | None:
        """Seconds since the last change, by the server's clock; None before the first."""
        return None if self.ts is None else self._clock.age_seconds(self.ts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BookState) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash((self.symbol, self.status, self.ts))

    def _content(self) -> tuple[object, ...]:
        return self.symbol, self.status, self.ts, self.position, self.bids, self.asks

    def _read(self, getter: Callable[[Book], ResultT]) -> ResultT:
        return getter(self._book)


class BookSource(Protocol):
    """What gives a book its messages."""

    def resync(self, reader: Reader[MarketMessage], topic: str) -> None:
        """Reset the reader's position: it needs a snapshot."""

    def remove(self, reader: Reader[MarketMessage]) -> None:
        """Remove a reader."""

    def is_syncing(self, topic: str) -> bool:
        """True if the state of the topic is missing or on its way."""

    def feed_state(self, topic: str) -> FeedState | None:
        """The freshness of a topic's feed; None if unknown."""


class BookReader(Reader[MarketMessage]):
    """Applies each message on arrival, so its buffer stays empty."""

    def __init__(self, symbol: str, source: BookSource, counters: Counters):
        super().__init__(1, counters, on_space=lambda reader: None)
        self._source = source
        self.symbol = symbol
        self.book = Book(symbol)
        # The server's time of the last change.
        self.ts: int | None = None
        # Incremented with each change of the book, and by the first reply.
        self.version = 0
        self.resyncs = 0

    def apply_state(self, topic: str, state: TopicState[MarketMessage]) -> bool:
        """Take the server's state; a new epoch without a snapshot is an empty book."""
        position = self.position(topic)
        if not self.is_ready:
            self.version += 1
        if state.snapshot is None and position is not None and position.epoch != state.epoch:
            self.book = Book(self.symbol)
            self.version += 1
        complete = super().apply_state(topic, state)
        if state.snapshot is not None and self.position(topic) is None:
            # Another request at once could loop forever; an error is retried after a pause.
            raise ServerUnavailable("the checksum of a book snapshot does not match")
        return complete

    def _store(self, topic: str, tracker: GapTracker, message: MarketMessage) -> None:
        applied = self.book.apply(cast(BookMessage, message))
        self.version += 1
        if applied:
            self.ts = message.ts
            tracker.advance(message.epoch, message.seq)
        else:
            self.resyncs += 1
            self._source.resync(self, topic)
        self.notify()


class LiveBook(ReaderHandle[BookReader], BookView):
    """A book that changes while you read it.

    `async with` waits for the first state. `async for` yields a `BookState` after each change of
    the book or of its status; a slow reader sees fewer, later states, each of them whole.
    """

    def __init__(
        self,
        reader: BookReader,
        source: BookSource,
        clock: MessageClock,
        is_online: Callable[[], bool],
    ) -> None:
        super().__init__(reader, source.remove)
        self._source = source
        self._clock = clock
        self._is_online = is_online
        self._seen: tuple[int, BookStatus] = (0, BookStatus.SYNCING)

    @property
    def symbol(self) -> str:
        """The symbol of this book."""
        return self._reader.symbol

    @property
    def topic(self) -> str:
        """The topic of this book."""
        return self._reader.topics[0]

    @property
    def status(self) -> BookStatus:
        """The reliability of the book now; SYNCING also if the server has no such book yet."""
        if self._reader.is_ended or not self._is_online():
            return BookStatus.OFFLINE
        if self._reader.book.position is None or self._source.is_syncing(self.topic):
            return BookStatus.SYNCING
        if self._source.feed_state(self.topic) is FeedState.STALE:
            return BookStatus.STALE
        return BookStatus.LIVE

    @property
    def now(self) -> BookState:
        """A copy of the book as it is now."""
        reader = self._reader
        return BookState(self.symbol, self.status, reader.ts, reader.book.copy(), self._clock)

    @property
    def resyncs(self) -> int:
        """How often the book was out of step and needed a snapshot."""
        return self._reader.resyncs

    def _read(self, getter: Callable[[Book], ResultT]) -> ResultT:
        return getter(self._reader.book)

    def __repr__(self) -> str:
        return f"<LiveBook {self.symbol} {self.status} {self.best_bid} | {self.best_ask}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BookState:
        reader = self._reader
        while (reader.version, self.status) == self._seen or reader.is_ended:
            if reader.is_ended:
                if reader.error is not None:
                    raise reader.error.clone()
                raise StopAsyncIteration
            await reader.wait_changed()
        self._seen = reader.version, self.status
        return self.now
