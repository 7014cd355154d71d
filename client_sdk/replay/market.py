"""A market that files hold: read it as `client.market`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from os import PathLike
from types import TracebackType
from typing import Any, Self

from client_sdk.contract import (
    AnyMessage,
    FeedState,
    MarketMessage,
    Position,
    PriceMessage,
    Stream,
    TradesMessage,
)
from client_sdk.market.live_book import LiveBook, book_topic
from client_sdk.market.market import Since
from client_sdk.reading.gaps import Gap
from client_sdk.reading.readers import Reader
from client_sdk.reading.streams import Callback, Callbacks, MessageStream, OnItem
from client_sdk.replay.files import merged
from client_sdk.replay.readers import ReplayBookReader, ReplayReader
from client_sdk.replay.tape import Tape


class ReplayMarket:
    """The reading side of `Market`, from files.

    All streams see the same time: one gets its next message once the others have handled theirs.
    Open all of them before you read one.
    """

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._callbacks = Callbacks()

    def prices(self, *symbols: str, interval_ms: int = 0) -> MessageStream[PriceMessage]:
        """Stream every price of these symbols; the interval makes no difference."""
        return MessageStream(self._new_reader(Stream.PRICE, symbols), self._remove)

    def trades(
        self, *symbols: str, since: Since = None, last: int = 0
    ) -> MessageStream[TradesMessage | Gap]:
        """Stream every trade in order, those after `since`; nothing is before the beginning."""
        return MessageStream(self._new_reader(Stream.TRADES, symbols, since), self._remove)

    def stream(
        self, *topics: str, interval_ms: int = 0, since: Since = None, last: int = 0
    ) -> MessageStream[AnyMessage | Gap]:
        """Stream any topics and patterns, as `Market.stream` does."""
        return MessageStream(self._new_reader(None, topics, since), self._remove)

    def on(
        self, topic: str, callback: OnItem, *, interval_ms: int = 0, since: Position | None = None
    ) -> Callback:
        """Call a function for each item of a topic, one at a time."""
        return self._callbacks.start(self.stream(topic, since=since), callback)

    def book(
        self,
        symbol: str,
        *,
        depth: int | None = None,
        step: str | Decimal | None = None,
        interval_ms: int = 0,
    ) -> LiveBook:
        """Keep an order book as of the newest message; the files must hold this topic."""
        source = _Books(self._tape)
        reader = ReplayBookReader(self._tape, symbol, book_topic(symbol, depth, step), source)
        return LiveBook(reader, source, self._tape.clock, lambda: True)

    async def close(self) -> None:
        """End the callbacks."""
        await self._callbacks.close()

    def _new_reader(
        self, stream: Stream | None, names: tuple[str, ...], since: Since = None
    ) -> ReplayReader:
        topics = [name if stream is None else f"{stream}:{name}" for name in names]
        if not topics:
            raise ValueError("name at least one topic or symbol")
        after = since if isinstance(since, datetime) else None
        positions: Mapping[str, Position] = {}
        if isinstance(since, Position):
            positions = {topics[0]: since}
        elif isinstance(since, Mapping):
            positions = since
        return ReplayReader(self._tape, topics, positions, after)

    def _remove(self, reader: Reader[Any]) -> None:
        assert isinstance(reader, ReplayReader)
        self._tape.remove(reader)


class Replay:
    """Files in place of a server, for backtests: `replay.market` reads as `client.market`.

    The files are Parquet files of `floorcast.data`, or recordings (`.jsonl`). A stream that is open
    and not read holds up the others; after `stuck_seconds` they raise `ReplayStuck`.
    """

    def __init__(self, *paths: str | PathLike[str], stuck_seconds: float = 30.0) -> None:
        self._tape = Tape(merged(paths), stuck_seconds=stuck_seconds)
        self.market = ReplayMarket(self._tape)

    @property
    def now(self) -> datetime:
        """The time of the newest message."""
        return datetime.fromtimestamp(self._tape.clock.now_ms / 1000, UTC)

    async def close(self) -> None:
        """End all streams."""
        self._tape.close()
        await self.market.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class _Books:
    """Gives a book of a tape its messages, and no snapshot if it is out of step."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def resync(self, reader: Reader[MarketMessage], topic: str) -> None:
        reader.reset(topic)

    def remove(self, reader: Reader[MarketMessage]) -> None:
        assert isinstance(reader, ReplayBookReader)
        self._tape.remove(reader)

    def is_syncing(self, topic: str) -> bool:
        return False

    def feed_state(self, topic: str) -> FeedState | None:
        return None
