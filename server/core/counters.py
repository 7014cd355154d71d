"""Counts what the server does, for whoever wants to show it."""

from collections import Counter


class Counters:
    """Numbers that only rise; their names are few and known in advance."""

    def __init__(self) -> None:
        self._events: Counter[tuple[str, str, str]] = Counter()
        self._seconds: Counter[tuple[str, str]] = Counter()
        self._totals: Counter[str] = Counter()

    def count_event(self, namespace: str, event_name: str, outcome: str, seconds: float) -> None:
        """One event was handled; `outcome` is "ok" or the code of the refusal."""
        self._events[namespace, event_name, outcome] += 1
        # A Counter's values are typed as int; it adds floats just as well.
        self._seconds[namespace, event_name] += seconds  # type: ignore[assignment]

    def add(self, name: str, amount: int = 1) -> None:
        """Something happened that has a name of its own."""
        self._totals[name] += amount

    def total(self, name: str) -> int:
        """How often it happened."""
        return self._totals[name]

    def events(self) -> dict[tuple[str, str, str], int]:
        """How many events of each kind had which outcome."""
        return dict(self._events)

    def seconds(self) -> dict[tuple[str, str], float]:
        """How long the events of each kind took together."""
        return dict(self._seconds)
