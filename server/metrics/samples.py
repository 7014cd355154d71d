"""The values of the metrics of one process at one moment, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.core.counters import Labels
from server.core.histograms import Histogram

# A histogram is the counts of its buckets, and the sum.
HistogramValue = tuple[list[int], float]
Value = float | HistogramValue


@dataclass(frozen=True, slots=True)
class Samples:
    """The values of metrics, by name and labels."""

    values: dict[str, list[tuple[Labels, Value]]] = field(default_factory=dict)

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add the value of a counter or gauge."""
        self.values.setdefault(name, []).append((labels, value))

    def add_counts(self, name: str, counts: Mapping[Labels, int]) -> None:
        """Add a counter for each set of labels."""
        for labels, count in counts.items():
            self.add(name, count, *labels)

    def add_histogram(self, name: str, histogram: Histogram, *labels: str) -> None:
        """Add a histogram, unless it is empty and has labels."""
        if any(histogram.counts) or not labels:
            value = (list(histogram.counts), histogram.sum)
            self.values.setdefault(name, []).append((labels, value))

    def add_histograms(self, name: str, histograms: Mapping[Labels, Histogram]) -> None:
        """Add the histograms of all sets of labels."""
        for labels, histogram in histograms.items():
            self.add_histogram(name, histogram, *labels)


@dataclass(frozen=True, slots=True)
class Report:
    """What a process says about itself: its metrics, and why it is not ready."""

    samples: Samples
    obstacles: list[str]
    # Whether it answers: if not, the samples are what it has counted before.
    is_up: bool = True

    def body(self) -> dict[str, Any]:
        """The report as JSON."""
        return {"values": self.samples.values, "obstacles": self.obstacles}

    @staticmethod
    def parse(body: Mapping[str, Any]) -> "Report":
        """The report of another process, from its JSON."""
        samples = Samples()
        for name, values in body["values"].items():
            samples.values[name] = [(tuple(labels), value) for labels, value in values]
        return Report(samples, list(body["obstacles"]))
