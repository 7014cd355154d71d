"""Names views: what the server derives from a topic, such as the best levels of a book."""

import re
from dataclasses import dataclass
from decimal import Decimal

from client_sdk.contract import ErrorCode, Stream
from server.core.errors import RequestError

MAX_DEPTH = 200
# The lengths of a bar in ms, by the name in a topic.
INTERVALS: dict[str, int] = {
    "1s": 1_000,
    "5s": 5_000,
    "1m": 60_000,
    "5m": 300_000,
    "15m": 900_000,
    "1h": 3_600_000,
    "4h": 14_400_000,
    "1d": 86_400_000,
}

_DEPTH = re.compile(r"[1-9][0-9]{0,2}")
# One spelling for each step: two spellings would be two views.
_STEP = re.compile(r"(?=.{1,16}$)(?:[1-9][0-9]*|0(?=\.))(?:\.[0-9]*[1-9])?")


@dataclass(frozen=True, slots=True)
class DepthView:
    """The best levels of a book; with a step, its prices are grouped."""

    depth: int
    step: Decimal | None = None

    @property
    def text(self) -> str:
        """The view as it stands behind the `@` of a topic."""
        return f"{self.depth}" if self.step is None else f"{self.depth}/{self.step:f}"


@dataclass(frozen=True, slots=True)
class BarsView:
    """The candles of one interval."""

    interval: str

    @property
    def text(self) -> str:
        """The view as it stands behind the `@` of a topic."""
        return self.interval

    @property
    def interval_ms(self) -> int:
        """The length of a bar."""
        return INTERVALS[self.interval]


View = DepthView | BarsView


def parse_view(stream: Stream, text: str) -> View:
    """Parse what stands behind the `@` of a topic; raises `RequestError` with the reason."""
    if stream is Stream.ORDERBOOK:
        return _parse_depth(text)
    if stream is Stream.TRADES:
        if text not in INTERVALS:
            raise _unknown(f"the interval of candles is one of {', '.join(INTERVALS)}")
        return BarsView(text)
    raise _unknown(f"{stream.value} has no views")


def _parse_depth(text: str) -> DepthView:
    depth, slash, step = text.partition("/")
    if _DEPTH.fullmatch(depth) is None or int(depth) > MAX_DEPTH:
        raise _unknown(f"the depth of a book is a number from 1 to {MAX_DEPTH}")
    if not slash:
        return DepthView(int(depth))
    if _STEP.fullmatch(step) is None:
        raise _unknown(
            "the step of a grouped book is a decimal above zero without needless zeros, such as 0.5"
        )
    return DepthView(int(depth), Decimal(step))


def _unknown(message: str) -> RequestError:
    return RequestError(ErrorCode.TOPIC_UNKNOWN, message)
