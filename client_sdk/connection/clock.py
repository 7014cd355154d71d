"""Estimates the server's clock from the timestamps of its welcome events."""

import time
from collections.abc import Callable

# An older, more exact sample gives way to a newer one after this: clocks drift.
_SAMPLE_TTL_SECONDS = 600.0


class ServerClock:
    """Keeps the sample with the shortest round trip, whose error is the smallest."""

    __slots__ = (
        "_monotonic",
        "_offset_ms",
        "_round_trip_seconds",
        "_sampled_at",
        "_server_minus_monotonic_ms",
        "_time",
    )

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._time = wall
        self._monotonic = monotonic
        self._offset_ms = 0.0
        # Ages are measured against this: a step of the local clock does not change them.
        self._server_minus_monotonic_ms = (wall() - monotonic()) * 1000
        self._round_trip_seconds = float("inf")
        self._sampled_at = 0.0

    @property
    def offset_ms(self) -> float:
        """How far the server's clock is ahead of the local one."""
        return self._offset_ms

    def monotonic(self) -> float:
        """Seconds for measuring durations."""
        return self._monotonic()

    def add_sample(self, server_time_ms: int, round_trip_seconds: float) -> None:
        """Take a server time that arrived just now, in a reply that took this long."""
        now = self._monotonic()
        is_old = now - self._sampled_at > _SAMPLE_TTL_SECONDS
        if round_trip_seconds < self._round_trip_seconds or is_old:
            self._round_trip_seconds = round_trip_seconds
            self._sampled_at = now
            half_ms = round_trip_seconds / 2 * 1000
            self._offset_ms = server_time_ms + half_ms - self._time() * 1000
            self._server_minus_monotonic_ms = server_time_ms + half_ms - now * 1000

    def age_seconds(self, ts_ms: int) -> float:
        """The time since `ts_ms` by the server's clock, never negative."""
        server_ms = self._monotonic() * 1000 + self._server_minus_monotonic_ms
        # Runs for every message; `max` would double its cost.
        return (server_ms - ts_ms) / 1000 if server_ms > ts_ms else 0.0
