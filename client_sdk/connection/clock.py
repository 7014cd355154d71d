"""Estimates the server's clock from the moments at which it told the time."""

import time
from collections.abc import Callable

# A newer look replaces an older, more exact one after this: clocks drift.
_SAMPLE_TTL_SECONDS = 600.0


class ServerClock:
    """The look with the shortest way there and back is off by the least."""

    __slots__ = ("_monotonic", "_offset_ms", "_round_trip_seconds", "_sampled_at", "_time")

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._time = wall
        self._monotonic = monotonic
        self._offset_ms = 0.0
        self._round_trip_seconds = float("inf")
        self._sampled_at = 0.0

    @property
    def offset_ms(self) -> float:
        """How far the server's clock is ahead of ours."""
        return self._offset_ms

    def monotonic(self) -> float:
        """Seconds for measuring how long something takes."""
        return self._monotonic()

    def add_sample(self, server_time_ms: int, round_trip_seconds: float) -> None:
        """The server has just told its time, in an answer that took so long."""
        now = self._monotonic()
        if (
            round_trip_seconds < self._round_trip_seconds
            or now - self._sampled_at > _SAMPLE_TTL_SECONDS
        ):
            self._round_trip_seconds = round_trip_seconds
            self._sampled_at = now
            middle_ms = (self._time() - round_trip_seconds / 2) * 1000
            self._offset_ms = server_time_ms - middle_ms

    def age_seconds(self, ts_ms: int) -> float:
        """How long ago that was by the server's clock."""
        return max(0.0, (self._time() * 1000 + self._offset_ms - ts_ms) / 1000)
