"""Provides clocks that tests advance by hand."""

import time

from floorcast.testing.clock import START, ManualClock

__all__ = ["START", "ManualClock", "RunningClock"]


class RunningClock(ManualClock):
    """A manual clock that also runs: for the behaviour of a busy server."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def monotonic(self) -> float:
        return super().monotonic() + time.monotonic() - self._began

    def time(self) -> float:
        return super().time() + time.monotonic() - self._began
