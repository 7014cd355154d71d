"""Derives the candles of a symbol from its trades; the same on every node."""

from typing import cast

import orjson

from server.core.log.entries import Entry, Position, Reset
from server.core.log.history import History
from server.core.market.bars import Bar, BarSeries, BarTrade
from server.core.market.source_time import copy_source_ts
from server.core.market.topic_state import TopicState

# Parsing more than this for one client would block the loop for milliseconds.
_MAX_MERGED_BYTES = 8 * 1024


def trades_of(entry: Entry) -> list[BarTrade]:
    """The trades of an entry; a time ahead of the server's is no time of a trade."""
    latest_ms = entry.ts_ms + 60_000
    trades = []
    for each in orjson.loads(entry.data)["trades"]:
        ts_ms = each["ts"] if 0 <= each["ts"] <= latest_ms else entry.ts_ms
        trades.append(BarTrade(ts_ms, each["price"], each["qty"]))
    return trades


class BarsReplica:
    """The bars before the oldest entry of the history; `encode` applies the entries after it."""

    __slots__ = ("_bars", "_max_age_ms", "_newest", "seq")

    def __init__(self, max_age_ms: int, seq: int, latest: Entry | None) -> None:
        self._max_age_ms = max_age_ms
        # The newest entry applied.
        self.seq = seq
        self._newest = 0
        self._bars: dict[int, dict[str, object]] = {} if latest is None else _bars(latest)

    def apply(self, entry: Entry) -> None:
        """Apply an entry; no-op if it is applied already."""
        if entry.position.seq <= self.seq:
            return
        if entry.kind == "snapshot":
            self._bars = {}
        changed = _bars(entry)
        self._bars.update(changed)
        self.seq = entry.position.seq
        newest = max(changed, default=self._newest)
        if newest > self._newest:
            self._newest = newest
            oldest = newest - self._max_age_ms
            self._bars = {t: bar for t, bar in self._bars.items() if t > oldest}

    def encode(self, seq: int, history: History) -> bytes:
        """All bars at `seq` as JSON; `history` must reach up to `seq`."""
        for entry in history.since(self.seq) or ():
            self.apply(entry)
        return orjson.dumps({"bars": [self._bars[t] for t in sorted(self._bars)]})

    def merge(self, entries: list[Entry]) -> bytes | None:
        """Merge entries into one change; None if a snapshot is cheaper or one is among them."""
        remaining_bytes = _MAX_MERGED_BYTES
        bars: dict[int, dict[str, object]] = {}
        for entry in entries:
            remaining_bytes -= len(entry.data)
            if remaining_bytes < 0 or entry.kind == "snapshot":
                return None
            bars.update(_bars(entry))
        return orjson.dumps({"bars": [bars[t] for t in sorted(bars)]})


def _bars(entry: Entry) -> dict[int, dict[str, object]]:
    bodies = cast("list[dict[str, object]]", orjson.loads(entry.data)["bars"])
    return {cast(int, each["t"]): each for each in bodies}


class DerivedBars:
    """One view of a symbol's trades on this node; the series must be current."""

    def __init__(self, name: str, series: BarSeries, source: TopicState) -> None:
        self._name = name
        self._source = source
        self.series = series
        # After a reset, trades may be missing: the series must be loaded again.
        self.is_incomplete = False
        self._last = self._head = source.position

    @property
    def latest(self) -> Entry | None:
        """The whole view as an entry; None if no trade was ever published."""
        latest = self._source.latest
        if latest is None:
            return None
        return Entry(
            self._name,
            self._head,
            latest.ts_ms,
            copy_source_ts(latest.data, self._encode(self.series.bars())),
            "snapshot",
        )

    def derive(self, entry: Entry) -> Entry | None:
        """The entry of the view that new trades cause; None if none."""
        position = entry.position
        if position.epoch == self._head.epoch and position.seq <= self._head.seq:
            return None
        self._head = position
        changed = self.series.add(trades_of(entry))
        return self._entry(entry, changed) if changed else None

    def advance(self) -> Entry | None:
        """An entry without a change up to the newest trades; None if the view is there."""
        latest = self._source.latest
        return None if self._last == self._head or latest is None else self._entry(latest, [])

    def restart(self, reset: Reset) -> Reset:
        """The reset of the view that a reset of the trades causes."""
        self.is_incomplete = True
        self._last = self._head = reset.head
        return Reset(self._name, reset.head, self.latest)

    def replace(self, series: BarSeries) -> Reset:
        """Take over a series that was loaded up to the newest trades."""
        self.is_incomplete = False
        self.series = series
        self._last = self._head = self._source.position
        return Reset(self._name, self._head, self.latest)

    def _entry(self, source: Entry, changed: list[Bar]) -> Entry:
        data = copy_source_ts(source.data, self._encode(changed))
        after = self._head.seq - 1 if self._last.epoch != self._head.epoch else self._last.seq
        self._last = self._head
        return Entry(self._name, self._head, source.ts_ms, data, "update", after)

    def _encode(self, bars: list[Bar]) -> bytes:
        return orjson.dumps({"bars": self.series.bodies(bars)})


class BarsKeeping:
    """The bars of all intervals of one symbol, and which of them are not kept yet."""

    def __init__(self, series: dict[str, BarSeries], position: Position) -> None:
        self.series = series
        self.position = position
        # By interval: the starts of the bars that have changed since the last `take_changes`.
        self._changed: dict[str, set[int]] = {}
        # How many messages those are of.
        self.pending = 0
        self.is_incomplete = False
        self.replace(series, position)

    def derive(self, entry: Entry) -> None:
        """Count new trades."""
        position = entry.position
        if position.epoch == self.position.epoch and position.seq <= self.position.seq:
            return
        self.position = position
        self.pending += 1
        trades = trades_of(entry)
        for name, series in self.series.items():
            self._changed[name].update(each.t for each in series.add(trades))

    def advance(self) -> None:
        """There are no clients that could be behind."""

    def restart(self, reset: Reset) -> Reset:
        """Record that trades may be missing."""
        self.is_incomplete = True
        return reset

    def replace(self, series: dict[str, BarSeries], position: Position) -> None:
        """Take over series that were loaded up to a position; their newest bars may be unkept."""
        self.is_incomplete = False
        self.series, self.position = series, position
        self._changed = {
            name: {each.t for each in some.bars() if not some.is_late(each.t)}
            for name, some in series.items()
        }
        self.pending = int(any(self._changed.values()))

    def restore(self, changed: dict[str, set[int]]) -> None:
        """Record changes that could not be kept."""
        for name, times in changed.items():
            self._changed[name] |= times
        self.pending += 1

    def take_changes(self) -> dict[str, set[int]]:
        """The bars that have changed since the last call, by interval."""
        changed = {name: times for name, times in self._changed.items() if times}
        self._changed = {name: set() for name in self.series}
        self.pending = 0
        return changed
