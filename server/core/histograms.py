"""Histograms of seconds as plain integers, read when somebody asks for them."""

from bisect import bisect_left

# The upper bounds of the buckets; one more bucket holds what is longer.
BOUNDS_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


class Histogram:
    """Counts durations by bucket; an observation costs one search in a short tuple."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        """Count a duration, `count` times; a negative one, of clocks that differ, counts as 0."""
        if seconds < 0.0:
            seconds = 0.0
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += count
        self.sum += seconds * count
