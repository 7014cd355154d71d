"""Provides a clock that tests advance by hand."""

START = 1_800_000_000.0


class ManualClock:
    """A clock that stands still between two calls of `advance`."""

    def __init__(self) -> None:
        self._elapsed = 0.0

    def monotonic(self) -> float:
        return 1000.0 + self._elapsed

    def time(self) -> float:
        return START + self._elapsed

    def advance(self, seconds: float) -> None:
        """Move both times forward."""
        self._elapsed += seconds
