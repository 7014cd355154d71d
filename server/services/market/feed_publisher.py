"""Publishes for a feed, and yields to the event loop regularly."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping

from client_sdk.contract import ErrorCode, Stream
from server.core.errors import RequestError
from server.core.log.entries import Position
from server.core.market.topics import Topic, channel_for
from server.services.market.demand import Demand
from server.services.market.feed_books import FeedBooks
from server.services.market.instruments import Instruments
from server.services.market.publishing import PublishingService

# The memory broker never suspends: without a yield, a busy feed would block the event loop.
MESSAGES_PER_TURN = 64
# The channels that are remembered; the oldest is forgotten first.
_MAX_CHANNELS = 200_000


def _ignore_stale(topics: Collection[str], reason: str) -> None:
    pass


class FeedPublisher:
    """Implements the `Publishing` port for one feed, and remembers its channels."""

    def __init__(
        self,
        publishing: PublishingService,
        name: str = "",
        instruments: Instruments | None = None,
        demand: Demand | None = None,
        on_stale: Callable[[Collection[str], str], None] = _ignore_stale,
    ) -> None:
        self._publishing = publishing
        self._instruments = instruments
        self._demand = demand
        self._name = name
        self._on_stale = on_stale
        self._books = FeedBooks()
        self._attempted = 0
        # The topics that `set_stale` was called for and that have had no message since.
        self._stale: set[str] = set()
        self._channels: dict[str, None] = {}
        # Messages that the broker has accepted.
        self.published = 0
        # Whether the feed follows what is wanted, and nothing is.
        self.is_unwanted = False

    @property
    def channels(self) -> Collection[str]:
        """The channels that the feed has published to; grows as it publishes."""
        return self._channels.keys()

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
        source_ts: int | None = None,
        identifier: str | None = None,
    ) -> Position:
        """Publish one message; raises what `PublishingService.publish` raises."""
        self._attempted += 1
        if self._attempted % MESSAGES_PER_TURN == 0:
            await asyncio.sleep(0)
        position = await self._publishing.publish(
            topic,
            data,
            kind=kind,
            user=user,
            org=org,
            source_ts=source_ts,
            # Two feeds may count alike.
            identifier=None if identifier is None else f"{self._name}:{identifier}",
        )
        self.published += 1
        if self._stale:
            self._stale.discard(topic)
        # The channel of a public topic has its name.
        channel = topic if user is None else channel_for(Topic.parse(topic), org, user)
        if channel not in self._channels:
            self._remember(channel)
        return position

    async def publish_book(
        self,
        symbol: str,
        bids: Iterable[tuple[str, str]],
        asks: Iterable[tuple[str, str]],
        *,
        source_ts: int | None = None,
    ) -> Position | None:
        """Publish what has changed since the last book of a symbol; None if nothing has."""
        topic = f"{Stream.ORDERBOOK}:{symbol}"
        change = self._books.change(topic, bids, asks)
        if change is None:
            return None
        kind, data = change
        try:
            try:
                return await self.publish(topic, data, kind=kind, source_ts=source_ts)
            except RequestError as error:
                if error.code is not ErrorCode.PUBLISH_SNAPSHOT_REQUIRED:
                    raise
                # The server lost the book: a restart, or another Redis.
                whole = self._books.whole(topic)
                return await self.publish(topic, whole, kind="snapshot", source_ts=source_ts)
        except BaseException:
            self._books.forget(topic)
            raise

    async def latest(self, topic: str) -> Mapping[str, object] | None:
        """The data of the newest message of a public topic; None if there is none."""
        return await self._publishing.latest(topic)

    async def set_instrument(self, symbol: str, fields: Mapping[str, object]) -> None:
        """Set reference data or the trading state of a symbol; other fields stay."""
        if self._instruments is None:
            raise RequestError(ErrorCode.REQUEST_INVALID, "this publisher sets no instruments")
        await self._instruments.put(symbol, fields)

    async def demand(
        self, symbols: Collection[str] | None = None, *, grace_seconds: float = 10.0
    ) -> AsyncIterator[frozenset[str]]:
        """Yield the topics that somebody listens to, at once and after each change."""
        if self._demand is None:
            raise RequestError(ErrorCode.REQUEST_INVALID, "this publisher knows no demand")
        try:
            async for topics in self._demand.follow(symbols, grace_seconds):
                self.is_unwanted = not topics
                yield topics
        finally:
            self.is_unwanted = False

    def set_stale(self, topics: Collection[str], reason: str) -> None:
        """Mark topics STALE, each until its next message; a book continues with a snapshot."""
        for topic in topics:
            self._books.forget(topic)
        self._stale.update(topics)
        self._on_stale(tuple(self._stale), reason)

    def _remember(self, channel: str) -> None:
        if len(self._channels) >= _MAX_CHANNELS:
            del self._channels[next(iter(self._channels))]
        self._channels[channel] = None
