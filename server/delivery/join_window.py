"""How long entries wait for others, so that one write carries several: by load, not by habit."""

# Over this time load and rate are averaged.
_AVERAGED_SECONDS = 0.05
# The share of the loop's time taken by deliveries at which joining begins, and at which the
# window has its full length.
_MIN_LOAD, _FULL_LOAD = 0.25, 0.5
# Joining pays only if so many entries come within the longest window; fewer if nothing else would
# end the overload.
_MIN_JOINED, _MIN_JOINED_OVERLOADED = 8, 3
_OVERLOAD = 0.9


class JoinWindow:
    """The pause after a flush: none while the loop has time to spare, `max_seconds` under load."""

    __slots__ = ("_load", "_max_seconds", "_rate", "_recorded_at")

    def __init__(self, max_seconds: float, now: float) -> None:
        self._max_seconds = max_seconds
        self._recorded_at = now
        # The busy share of the time, and entries a second.
        self._load = self._rate = 0.0

    def record(self, now: float, busy_seconds: float, entries: int) -> None:
        """Record a flush that has ended now."""
        cycle = now - self._recorded_at
        if cycle <= 0.0:
            return
        self._recorded_at = now
        weight = min(1.0, cycle / _AVERAGED_SECONDS)
        self._load += (min(1.0, busy_seconds / cycle) - self._load) * weight
        self._rate += (entries / cycle - self._rate) * weight

    @property
    def seconds(self) -> float:
        """How long the next flush should wait."""
        needed = _MIN_JOINED if self._load < _OVERLOAD else _MIN_JOINED_OVERLOADED
        if self._load <= _MIN_LOAD or self._rate * self._max_seconds < needed:
            return 0.0
        share = (self._load - _MIN_LOAD) / (_FULL_LOAD - _MIN_LOAD)
        return self._max_seconds * min(1.0, share)
