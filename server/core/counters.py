"""Counts what the server does, for metrics and the console."""

from collections import Counter
from collections.abc import Mapping

from server.core.histograms import Histogram

Labels = tuple[str, ...]

# The label sets of one name; further ones share one, whose labels are all OTHER.
_MAX_LABELS = 1_000
OTHER = "(other)"
ACK = "events.ack"


class EventCounter:
    """The calls of one event by outcome, and how long they took."""

    __slots__ = ("_counters", "_histogram", "_labels", "outcomes", "seconds")

    def __init__(self, counters: "Counters", namespace: str, event_name: str) -> None:
        self._counters = counters
        self._labels = (namespace, event_name)
        # Created on first use: an event that never came has no metrics.
        self._histogram: Histogram | None = None
        self.outcomes: dict[str, int] = {}
        self.seconds = 0.0

    def count(self, outcome: str, seconds: float) -> None:
        """Count a handled event; `outcome` is "ok", "cancelled" or an error code."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.seconds += seconds
        if self._histogram is None:
            self._histogram = self._counters.histogram(ACK, *self._labels)
        self._histogram.observe(seconds)


class Counters:
    """Counters that only increase, and histograms of durations.

    The set of names must be small and fixed. Hot paths keep their `Histogram` or `EventCounter`.
    """

    def __init__(self) -> None:
        self._events: dict[tuple[str, str], EventCounter] = {}
        self._totals: Counter[str] = Counter()
        self._labelled: dict[str, Counter[Labels]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}

    def count_event(self, namespace: str, event_name: str, outcome: str, seconds: float) -> None:
        """Count a handled event; `outcome` is "ok", "cancelled" or an error code."""
        self.events_of(namespace, event_name).count(outcome, seconds)

    def events_of(self, namespace: str, event_name: str) -> EventCounter:
        """The counter of one event, created on first use."""
        key = (namespace, event_name)
        found = self._events.get(key)
        if found is None:
            found = self._events[key] = EventCounter(self, namespace, event_name)
        return found

    def add(self, name: str, amount: int = 1) -> None:
        """Increase a named counter."""
        self._totals[name] += amount

    def count(self, name: str, *labels: str) -> None:
        """Increase the counter with these labels by one; always as many labels for one name."""
        counts = self._labelled.get(name)
        if counts is None:
            counts = self._labelled[name] = Counter()
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
        return {
            (*event, outcome): count
            for event, counter in self._events.items()
            for outcome, count in counter.outcomes.items()
        }

    def seconds(self) -> dict[tuple[str, str], float]:
        """The total handling time by namespace and event name."""
        return {event: each.seconds for event, each in self._events.items() if each.outcomes}
