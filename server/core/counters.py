"""Counts what the server does, for metrics and the console."""

from collections import Counter
from collections.abc import Mapping

from server.core.histograms import Histogram

Labels = tuple[str, ...]

# The label sets of one name; further ones share one, whose labels are all OTHER.
_MAX_LABELS = 1_000
OTHER = "(other)"
ACK = "events.ack"


class Counters:
    """Counters that only increase, and histograms of durations.

    The set of names must be small and fixed. Hot paths keep their `Histogram`.
    """

    def __init__(self) -> None:
        self._events: Counter[tuple[str, str, str]] = Counter()
        self._seconds: Counter[tuple[str, str]] = Counter()
        self._totals: Counter[str] = Counter()
        self._labelled: dict[str, Counter[Labels]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}

    def count_event(self, namespace: str, event_name: str, outcome: str, seconds: float) -> None:
        """Count a handled event; `outcome` is "ok", "cancelled" or an error code."""
        self._events[namespace, event_name, outcome] += 1
        # A Counter's values are typed as int; it adds floats just as well.
        self._seconds[namespace, event_name] += seconds  # type: ignore[assignment]
        self.histogram(ACK, namespace, event_name).observe(seconds)

    def add(self, name: str, amount: int = 1) -> None:
        """Increase a named counter."""
        self._totals[name] += amount

    def count(self, name: str, *labels: str) -> None:
        """Increase the counter with these labels by one; always as many labels for one name."""
        counts = self._labelled.setdefault(name, Counter())
        if len(counts) >= _MAX_LABELS and labels not in counts:
            labels = (OTHER,) * len(labels)
        counts[labels] += 1

    def histogram(self, name: str, *labels: str) -> Histogram:
        """The histogram with these labels, created on first use."""
        histograms = self._histograms.setdefault(name, {})
        if len(histograms) >= _MAX_LABELS and labels not in histograms:
            labels = (OTHER,) * len(labels)
        found = histograms.get(labels)
        if found is None:
            found = histograms[labels] = Histogram()
        return found

    def total(self, name: str) -> int:
        """The value of a named counter; 0 if nothing was added."""
        return self._totals[name]

    def totals(self) -> Mapping[str, int]:
        """All named counters."""
        return self._totals

    def labelled(self, name: str) -> Mapping[Labels, int]:
        """The values of a counter by its labels."""
        return self._labelled.get(name, {})

    def histograms(self, name: str) -> Mapping[Labels, Histogram]:
        """The histograms of a name by their labels."""
        return self._histograms.get(name, {})

    def events(self) -> dict[tuple[str, str, str], int]:
        """The number of events by namespace, event name and outcome."""
        return dict(self._events)

    def seconds(self) -> dict[tuple[str, str], float]:
        """The total handling time by namespace and event name."""
        return dict(self._seconds)
