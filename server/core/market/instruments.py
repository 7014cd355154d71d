"""The reference data and the trading state of symbols, and the streams that they have."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import orjson

from client_sdk.contract import FeedState, InstrumentStatus, Stream
from server.core.market.topics import Topic

# Symbols that one part of a search looks at, in less than a millisecond.
_SYMBOLS_PER_PART = 2_000

_TRADING_STATES = {
    InstrumentStatus.HALTED.value: FeedState.HALTED,
    InstrumentStatus.CLOSED.value: FeedState.CLOSED,
}


@dataclass(frozen=True, slots=True)
class Instrument:
    """One symbol: what publishers say of it, and the streams that were ever published."""

    symbol: str
    fields: Mapping[str, object] = field(default_factory=dict)
    streams: tuple[Stream, ...] = ()

    @property
    def trading_state(self) -> FeedState | None:
        """HALTED or CLOSED; None while it trades."""
        return _TRADING_STATES.get(str(self.fields.get("status")))

    def body(self) -> dict[str, object]:
        """The instrument as clients receive it."""
        return {
            "status": InstrumentStatus.OPEN.value,
            **self.fields,
            "symbol": self.symbol,
            "streams": [each.value for each in self.streams],
        }


class InstrumentTable:
    """All known symbols, in order; a range of them is found without looking at the others."""

    def __init__(self) -> None:
        self._instruments: dict[str, Instrument] = {}
        self._symbols: list[str] = []
        # Rises when a symbol becomes known or unknown.
        self.version = 0

    def __len__(self) -> int:
        return len(self._instruments)

    def get(self, symbol: str) -> Instrument | None:
        """The instrument of a symbol; None if it is unknown."""
        return self._instruments.get(symbol)

    def knows(self, topic: Topic) -> bool:
        """Whether somebody has published a topic, or the topic that a view is derived from."""
        known = None if topic.symbol is None else self._instruments.get(topic.symbol)
        return known is not None and topic.stream in known.streams

    def search(self, pattern: str, after: str = "") -> Iterator[list[Instrument]]:
        """The instruments whose symbol matches a pattern such as `BTC*`, in order and in parts.

        A part may be empty: let others run between two parts, because there may be many.
        """
        prefix = pattern.partition("*")[0]
        start = max(bisect_left(self._symbols, prefix), bisect_left(self._symbols, after))
        end = bisect_right(self._symbols, prefix, start, key=lambda each: each[: len(prefix)])
        # A copy: the table may change while it is read.
        symbols = self._symbols[start:end]
        for first in range(0, len(symbols), _SYMBOLS_PER_PART):
            part = symbols[first : first + _SYMBOLS_PER_PART]
            found = (self._instruments.get(each) for each in part if matches(pattern, each))
            yield [each for each in found if each is not None and each.symbol != after]

    def set_fields(self, symbol: str, encoded: bytes | None) -> Instrument:
        """Take over the reference data of a symbol as JSON; None if there is none any more."""
        fields = {} if encoded is None else orjson.loads(encoded)
        return self._put(replace(self._known(symbol), fields=fields))

    def add_stream(self, topic: Topic) -> Instrument | None:
        """Record that a topic was published; None if that is known."""
        assert topic.symbol is not None
        known = self._known(topic.symbol)
        if topic.stream in known.streams:
            return None
        return self._put(replace(known, streams=tuple(sorted((*known.streams, topic.stream)))))

    def remove_stream(self, topic: Topic) -> Instrument:
        """Record that nothing of a topic is known any more."""
        assert topic.symbol is not None
        known = self._known(topic.symbol)
        left = tuple(each for each in known.streams if each is not topic.stream)
        return self._put(replace(known, streams=left))

    def _known(self, symbol: str) -> Instrument:
        return self._instruments.get(symbol) or Instrument(symbol)

    def _put(self, instrument: Instrument) -> Instrument:
        symbol = instrument.symbol
        if instrument.fields or instrument.streams:
            if symbol not in self._instruments:
                insort(self._symbols, symbol)
                self.version += 1
            self._instruments[symbol] = instrument
        elif self._instruments.pop(symbol, None) is not None:
            del self._symbols[bisect_left(self._symbols, symbol)]
            self.version += 1
        return instrument


def matches(pattern: str, symbol: str) -> bool:
    """Whether a symbol matches a pattern, in which `*` stands for any characters."""
    # Without a regular expression, which is slow to compile and is then kept: clients choose
    # the patterns.
    first, *rest = pattern.split("*")
    if not rest:
        return symbol == first
    if not symbol.startswith(first):
        return False
    start, last = len(first), rest.pop()
    for part in rest:
        found = symbol.find(part, start)
        if found < 0:
            return False
        start = found + len(part)
    return len(symbol) - start >= len(last) and symbol.endswith(last)
