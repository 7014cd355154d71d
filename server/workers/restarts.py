"""Limits how often dead workers are replaced."""

from collections import deque


class RestartLimit:
    """Allows fewer than `deaths` deaths within `seconds`."""

    def __init__(self, *, deaths: int = 5, seconds: float = 30.0) -> None:
        self.deaths = deaths
        self.seconds = seconds
        self._died_at: deque[float] = deque(maxlen=deaths)

    def record_death(self, now: float) -> bool:
        """Record the death of a worker; return whether it may be replaced."""
        self._died_at.append(now)
        return len(self._died_at) < self.deaths or now - self._died_at[0] > self.seconds
