"""Candles of one symbol and interval: exact, aligned to UTC, a function of the trades alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from server.core.market.depth import EXACT

# A trade that is so many intervals late is not counted: its bar may be no longer in memory.
LATE_BARS = 16


class BarTrade(NamedTuple):
    """What a candle needs of a trade."""

    ts_ms: int
    price: str
    quantity: str


@dataclass(slots=True)
class Bar:
    """The trades of one interval; the texts of prices are those of the trades."""

    t: int
    o: str
    h: str
    l: str  # noqa: E741
    c: str
    v: Decimal
    n: int
    # h and l as numbers.
    high: Decimal
    low: Decimal

    @staticmethod
    def of(t: int, trade: BarTrade) -> "Bar":
        """A bar of its first trade."""
        price = Decimal(trade.price)
        text = _plain(trade.price, price)
        return Bar(t, text, text, text, text, Decimal(trade.quantity), 1, price, price)

    def add(self, trade: BarTrade) -> None:
        """Count another trade."""
        price = Decimal(trade.price)
        self.c = _plain(trade.price, price)
        if price > self.high:
            self.high, self.h = price, self.c
        if price < self.low:
            self.low, self.l = price, self.c
        self.v = EXACT.add(self.v, Decimal(trade.quantity))
        self.n += 1

    def body(self, *, closed: bool) -> dict[str, object]:
        """The bar as clients receive it."""
        return {
            "t": self.t,
            "o": self.o,
            "h": self.h,
            "l": self.l,
            "c": self.c,
            "v": format(self.v, "f"),
            "n": self.n,
            "closed": closed,
        }

    @staticmethod
    def from_body(body: dict[str, object]) -> "Bar":
        """A bar from what clients receive."""
        texts = [str(body[name]) for name in ("o", "h", "l", "c")]
        return Bar(
            int(str(body["t"])),
            texts[0],
            texts[1],
            texts[2],
            texts[3],
            Decimal(str(body["v"])),
            int(str(body["n"])),
            Decimal(texts[1]),
            Decimal(texts[2]),
        )


class BarSeries:
    """The newest bars of one interval, oldest first; an interval without trades has none."""

    def __init__(self, interval_ms: int, max_bars: int, bars: Iterable[Bar] = ()) -> None:
        self.interval_ms = interval_ms
        self.max_age_ms = max_bars * interval_ms
        self._bars: dict[int, Bar] = {each.t: each for each in sorted(bars, key=_time)}
        self._prune()

    def add(self, trades: Iterable[BarTrade]) -> list[Bar]:
        """Count trades; returns the bars that have changed or are closed now, oldest first."""
        changed: dict[int, Bar] = {}
        for trade in trades:
            t = trade.ts_ms - trade.ts_ms % self.interval_ms
            newest = self.newest
            bar = self._bars.get(t)
            if bar is not None:
                if not self.is_late(t):
                    bar.add(trade)
                    changed[t] = bar
                continue
            if newest is not None and t < newest:
                if self.is_late(t):
                    continue
                self._bars[t] = Bar.of(t, trade)
                self._bars = dict(sorted(self._bars.items()))
            else:
                if newest is not None:
                    # It is sent once more, closed.
                    changed[newest] = self._bars[newest]
                self._bars[t] = Bar.of(t, trade)
            changed[t] = self._bars[t]
        if changed:
            self._prune()
        return [changed[t] for t in sorted(changed) if t in self._bars]

    @property
    def newest(self) -> int | None:
        """The start of the newest bar, the only one that is not closed; None without bars."""
        return next(reversed(self._bars), None)

    def bars(self, before: int | None = None, limit: int | None = None) -> list[Bar]:
        """The newest bars that begin before a time, oldest first."""
        found = [each for each in self._bars.values() if before is None or each.t < before]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def bodies(self, bars: Sequence[Bar]) -> list[dict[str, object]]:
        """Bars of this series as clients receive them."""
        newest = self.newest
        return [each.body(closed=each.t != newest) for each in bars]

    def is_late(self, t: int) -> bool:
        """Whether a trade of this bar comes too late to be counted."""
        newest = self.newest
        return newest is not None and t <= newest - LATE_BARS * self.interval_ms

    def _prune(self) -> None:
        newest = self.newest
        if newest is None:
            return
        while (oldest := next(iter(self._bars))) <= newest - self.max_age_ms:
            del self._bars[oldest]


def _time(bar: Bar) -> int:
    return bar.t


def _plain(text: str, number: Decimal) -> str:
    """A price without an exponent."""
    return format(number, "f") if "e" in text or "E" in text else text
