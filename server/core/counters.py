"""Counts what the server does, for metrics and the console."""

from collections import Counter


class Counters:
    """Monotonic counters; the set of names must be small and fixed."""

    def __init__(self) -> None:
        self._events: Counter[tuple[str, str, str]] = Counter()
        self._seconds: Counter[tuple[str, str]] = Counter()
        self._totals: Counter[str] = Counter()

    def count_event(self, namespace: str, event_name: str, outcome: str, seconds: float) -> None:
        """Count a handled event; `outcome` is "ok", "cancelled" or an error code."""
        self._events[namespace, event_name, outcome] += 1
        # A Counter's values are typed as int; it adds floats just as well.
        self._seconds[namespace, event_name] += seconds  # type: ignore[assignment]

    def add(self, name: str, amount: int = 1) -> None:
        """Increase a named counter."""
        self._totals[name] += amount

    def total(self, name: str) -> int:
        """The value of a named counter; 0 if nothing was added."""
        return self._totals[name]

    def events(self) -> dict[tuple[str, str, str], int]:
        """The number of events by namespace, event name and outcome."""
        return dict(self._events)

    def seconds(self) -> dict[tuple[str, str], float]:
        """The total handling time by namespace and event name."""
        return dict(self._seconds)
