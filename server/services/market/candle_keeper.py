"""Keeps the candles of the symbols whose trades this node publishes."""

from dataclasses import dataclass, field

from client_sdk.contract import Stream
from server.core.errors import FloorcastError
from server.core.log.channel_state import ChannelState
from server.core.market.bar_views import BarsKeeping
from server.core.market.bars import LATE_BARS
from server.core.market.topics import Topic
from server.core.market.views import INTERVALS
from server.delivery import Hub
from server.delivery.channel import Channel
from server.ports import Clock
from server.services.market.candle_store import CandleStore
from server.services.market.series_loader import SeriesLoader
from server.services.market.topic_subscriptions import TopicSubscriptions

# Changes are written after so long, or after so many messages: the history of the trades, from
# which another node goes on, has more.
_WRITE_SECONDS = 5.0
_WRITE_MESSAGES = 200
_IDLE_SECONDS = 600.0
_OPENED_PER_SWEEP = 20
_MAX_SYMBOLS = 20_000
# In memory: late trades change no older ones.
_BARS = 3 * LATE_BARS


@dataclass(slots=True)
class _Symbol:
    topic: Topic
    source: Channel
    channel: Channel
    keeping: BarsKeeping
    written_at: float = field(default=0.0)


class CandleKeeper:
    """Follows the trades of each symbol that is published here; several nodes may do so."""

    def __init__(
        self,
        store: CandleStore,
        loader: SeriesLoader,
        topics: TopicSubscriptions,
        hub: Hub,
        clock: Clock,
    ) -> None:
        self._store = store
        self._loader = loader
        self._topics = topics
        self._hub = hub
        self._clock = clock
        self._symbols: dict[str, _Symbol] = {}
        # When each symbol was published last, in ms.
        self._published_ms: dict[str, int] = {}

    def record(self, topic: Topic, ts_ms: int) -> None:
        """Record that trades were published; `sweep` follows them."""
        if topic.stream is Stream.TRADES and topic.symbol is not None and self._store.max_bars:
            self._published_ms[topic.symbol] = ts_ms

    async def sweep(self) -> None:
        """Follow new symbols, write what has changed, and leave symbols that are silent."""
        now = self._clock.monotonic()
        new = [each for each in self._published_ms if each not in self._symbols]
        try:
            for symbol in new[:_OPENED_PER_SWEEP]:
                if len(self._symbols) < _MAX_SYMBOLS:
                    await self._open(symbol)
                else:
                    del self._published_ms[symbol]
            for symbol, each in tuple(self._symbols.items()):
                keeping = each.keeping
                if keeping.is_incomplete:
                    await self._reload(symbol, each)
                is_due = now - each.written_at >= _WRITE_SECONDS
                if keeping.pending and (is_due or keeping.pending >= _WRITE_MESSAGES):
                    await self._write(symbol, each)
                idle_ms = self._clock.time() * 1000 - self._published_ms[symbol]
                if not keeping.pending and idle_ms > _IDLE_SECONDS * 1000:
                    await self._close(symbol)
        except FloorcastError:
            # The broker is down: the next sweep tries again.
            return

    async def stop(self) -> None:
        """Write what has changed, as far as the broker answers."""
        try:
            for symbol, each in self._symbols.items():
                if each.keeping.pending:
                    await self._write(symbol, each)
        except FloorcastError:
            # Another node, or this one after its restart, counts these trades from the history.
            return

    async def _open(self, symbol: str) -> None:
        topic = Topic(Stream.TRADES, symbol)
        with self._topics.hold(topic.name):
            try:
                source, _ = await self._topics.open(topic.name, topic)
                series = await self._loader.load(source, symbol, INTERVALS, _BARS)
            except BaseException:
                await self._topics.close(topic.name)
                raise
            keeping = BarsKeeping(series, source.state.position)
            state = ChannelState(source.state.position, None)
            channel = self._hub.open_derived(f"bars@{symbol}", state, source, keeping)
            self._symbols[symbol] = _Symbol(topic, source, channel, keeping)

    async def _reload(self, symbol: str, each: _Symbol) -> None:
        series = await self._loader.load(each.source, symbol, INTERVALS, _BARS)
        each.keeping.replace(series, each.source.state.position)

    async def _write(self, symbol: str, each: _Symbol) -> None:
        position = each.keeping.position
        changed = each.keeping.take_changes()
        try:
            for interval, times in changed.items():
                series = each.keeping.series[interval]
                await self._store.write(symbol, interval, series, times, position)
        except BaseException:
            each.keeping.restore(changed)
            raise
        each.written_at = self._clock.monotonic()

    async def _close(self, symbol: str) -> None:
        each = self._symbols.pop(symbol)
        del self._published_ms[symbol]
        self._hub.close(each.channel.name, each.source)
        await self._topics.close(each.topic.name)
