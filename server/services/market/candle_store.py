"""Keeps the candles of all symbols in the broker: by interval, in chunks of some bars."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from server.core.log.entries import Position
from server.core.market.bars import LATE_BARS, Bar, BarSeries
from server.core.market.views import INTERVALS
from server.ports import Clock, KeptValues

# Late trades change the newest two chunks only.
_BARS_PER_CHUNK = LATE_BARS
_MIN_KEEP_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class KeptBars:
    """The bars up to a position; None if there are none."""

    position: Position | None = None
    bars: list[Bar] = field(default_factory=list)
    # By the start of a bar that is further on: the last trades in it.
    ahead: dict[int, int] = field(default_factory=dict)


class CandleStore:
    """The kept bars; several nodes may keep those of one symbol, which are the same."""

    def __init__(self, kept: KeptValues, clock: Clock, *, max_bars: int) -> None:
        self._kept = kept
        self._clock = clock
        # Of each interval; 0 keeps none.
        self.max_bars = max_bars

    async def read(self, symbol: str, interval: str) -> KeptBars:
        """The bars of one interval as they were kept last."""
        if not self.max_bars:
            return KeptBars()
        chunks = []
        for value in (await self._kept.items(_kind(symbol, interval))).values():
            chunk = orjson.loads(value)
            epoch, seq = chunk["position"]
            bars = [Bar.from_body(each) for each in chunk["bars"]]
            if bars:
                chunks.append((Position(epoch, seq), bars))
        if not chunks:
            return KeptBars()
        newest, _ = max(chunks, key=lambda chunk: chunk[1][-1].t)
        ahead = {
            bar.t: position.seq
            for position, bars in chunks
            if position.epoch == newest.epoch and position.seq > newest.seq
            for bar in bars
        }
        return KeptBars(newest, [bar for _, bars in chunks for bar in bars], ahead)

    async def write(
        self, symbol: str, interval: str, series: BarSeries, changed: Iterable[int], at: Position
    ) -> None:
        """Keep the chunks of these bars, and the newest one, which says how far they reach."""
        newest = series.newest
        if newest is None:
            return
        width_ms = _BARS_PER_CHUNK * series.interval_ms
        chunks: dict[int, list[Bar]] = defaultdict(list)
        for bar in series.bars():
            chunks[bar.t // width_ms].append(bar)
        wanted = {t // width_ms for t in changed} | {newest // width_ms}
        values = {
            str(number): orjson.dumps(
                {"position": (at.epoch, at.seq), "bars": series.bodies(chunks[number])}
            )
            for number in wanted
            if number in chunks
        }
        seconds = max(_MIN_KEEP_SECONDS, 2 * self.max_bars * series.interval_ms / 1000)
        expires_at = self._clock.time() + seconds
        await self._kept.put(_kind(symbol, interval), values, expires_at=expires_at)

    def series(self, interval: str, kept: KeptBars, max_bars: int | None = None) -> BarSeries:
        """A series that begins with kept bars."""
        count = self.max_bars if max_bars is None else max_bars
        return BarSeries(INTERVALS[interval], max(1, count), kept.bars)


def _kind(symbol: str, interval: str) -> str:
    return f"bars@{symbol}@{interval}"
