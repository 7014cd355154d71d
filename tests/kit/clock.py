"""Provides clocks that tests advance by hand."""

import time

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


class RunningClock(ManualClock):
    """A manual clock that also runs: for the behaviour of a busy server."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def monotonic(self) -> float:
        return super().monotonic() + time.monotonic() - self._began

    def time(self) -> float:
        return super().time() + time.monotonic() - self._began
