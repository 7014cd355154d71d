"""Tells a worker that died from workers that cannot live."""

from collections import deque


class RestartLimit:
    """So many deaths within so many seconds are one too many."""

    def __init__(self, *, deaths: int = 5, seconds: float = 30.0) -> None:
        self.deaths = deaths
        self.seconds = seconds
        self._died_at: deque[float] = deque(maxlen=deaths)

    def record_death(self, now: float) -> bool:
        """A worker has died; whether another one may take its place."""
        self._died_at.append(now)
        return len(self._died_at) < self.deaths or now - self._died_at[0] > self.seconds
