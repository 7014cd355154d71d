"""Loads candles on any node: the kept bars, and the trades since."""

from collections.abc import Iterable

from server.core.log.entries import Entry, Position
from server.core.market.bar_views import trades_of
from server.core.market.bars import BarSeries, BarTrade
from server.delivery.channel import Channel
from server.services.market.candle_store import CandleStore, KeptBars
from server.services.market.past import Newest
from server.services.node_subscriptions import NodeSubscriptions, entries_since

_ALL = 1 << 30


class SeriesLoader:
    """Loads series up to the newest trade of a channel."""

    def __init__(self, store: CandleStore, node_subscriptions: NodeSubscriptions) -> None:
        self._store = store
        self._node_subscriptions = node_subscriptions

    async def load(
        self, channel: Channel, symbol: str, intervals: Iterable[str], max_bars: int | None = None
    ) -> dict[str, BarSeries]:
        """The series of a symbol, at the position of its channel, which must be held.

        Trades that were neither kept nor are in the history are missing.
        """
        kept = {each: await self._store.read(symbol, each) for each in intervals}
        epoch = channel.state.position.epoch
        starts = {name: _seq_in(each, epoch) for name, each in kept.items()}
        entries = await self._entries_since(channel, Position(epoch, min(starts.values())))
        # No await from here on: later trades follow these.
        trades = [(entry.position.seq, trades_of(entry)) for entry in entries]
        found = {}
        for name, each in kept.items():
            series = found[name] = self._store.series(name, each, max_bars)
            for seq, some in trades:
                if seq > starts[name]:
                    series.add(_not_counted(some, seq, series.interval_ms, each))
        return found

    async def _entries_since(self, channel: Channel, seen: Position) -> list[Entry]:
        missed = await self._node_subscriptions.missed_since(channel, seen)
        entries = entries_since(channel.state, seen, missed)
        if entries is not None:
            return entries
        newest = Newest(await self._node_subscriptions.newest(channel.name, _ALL))
        return newest.up_to_date(channel.state)


def _seq_in(kept: KeptBars, epoch: str) -> int:
    position = kept.position
    return position.seq if position is not None and position.epoch == epoch else 0


def _not_counted(
    trades: list[BarTrade], seq: int, interval_ms: int, kept: KeptBars
) -> list[BarTrade]:
    """The trades that are not in bars which another node has kept further."""
    if not kept.ahead:
        return trades
    return [
        each for each in trades if seq > kept.ahead.get(each.ts_ms - each.ts_ms % interval_ms, 0)
    ]
