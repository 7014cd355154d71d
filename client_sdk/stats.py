"""The client's counters and latency percentiles, in constant memory."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

# Each bucket is 10% wider than the one before, which bounds the error of a percentile.
_STEP = math.log(1.1)
_LEAST_MS = 0.01
# The last bucket holds everything above about 10 minutes.
_BUCKETS = 192
# Where the second bucket begins, and so on.
_BOUNDS = [_LEAST_MS * math.exp(index * _STEP) for index in range(_BUCKETS - 1)]


@dataclass(frozen=True, slots=True)
class Latency:
    """The age of messages on arrival in milliseconds, exact to about 10%."""

    count: int = 0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """The client's counters since its creation."""

    # Messages of topics and sessions: received; replaced by a newer one before they were read;
    # received twice; malformed.
    received: int
    merged: int
    duplicates: int
    malformed: int
    # Gaps that were detected; gaps that could not be filled.
    gaps_seen: int
    gaps: int
    reconnects: int
    latency: Latency
    clock_offset_ms: float


class Latencies:
    """Percentiles from a histogram with exponential buckets."""

    __slots__ = ("_buckets", "_count", "_max")

    def __init__(self) -> None:
        self._buckets = [0] * _BUCKETS
        self._count = 0
        self._max = 0.0

    def add(self, milliseconds: float) -> None:
        """Add one latency."""
        self._count += 1
        if milliseconds > self._max:
            self._max = milliseconds
        self._buckets[bisect_right(_BOUNDS, milliseconds)] += 1

    def summary(self) -> Latency:
        """The percentiles of all latencies."""
        if not self._count:
            return Latency()
        p50, p90, p99 = map(self._percentile, (0.5, 0.9, 0.99))
        return Latency(self._count, p50, p90, p99, self._max)

    def _percentile(self, share: float) -> float:
        rank = math.ceil(self._count * share)
        totals = accumulate(self._buckets)
        index = next(index for index, total in enumerate(totals) if total >= rank)
        return min(self._max, _LEAST_MS * math.exp(index * _STEP))


class Counters:
    """Counters that the parts of a client increment."""

    __slots__ = (
        "duplicates",
        "gaps",
        "gaps_seen",
        "latencies",
        "malformed",
        "merged",
        "received",
        "reconnects",
    )

    def __init__(self) -> None:
        self.received = 0
        self.merged = 0
        self.duplicates = 0
        self.malformed = 0
        self.gaps_seen = 0
        self.gaps = 0
        self.reconnects = 0
        self.latencies = Latencies()

    def snapshot(self, clock_offset_ms: float) -> Stats:
        """An immutable copy."""
        return Stats(
            received=self.received,
            merged=self.merged,
            duplicates=self.duplicates,
            malformed=self.malformed,
            gaps_seen=self.gaps_seen,
            gaps=self.gaps,
            reconnects=self.reconnects,
            latency=self.latencies.summary(),
            clock_offset_ms=clock_offset_ms,
        )
