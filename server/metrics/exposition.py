"""Renders samples in the formats of Prometheus."""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from server.core.histograms import BOUNDS_SECONDS
from server.metrics.catalogue import METRICS, Kind, Metric
from server.metrics.samples import Samples, Value

_BOUNDS = [*map(floatToGoString, BOUNDS_SECONDS), "+Inf"]
WORKER = "worker"


class SamplesCollector(Collector):
    """The samples of all processes, by worker; one exists for each scrape."""

    def __init__(self, samples: Mapping[str, Samples]) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Family]:
        """All metrics that have a value."""
        for metric in METRICS:
            family = _create_family(metric)
            for worker, samples in self._samples.items():
                for labels, value in samples.values.get(metric.name, ()):
                    _add(family, [*labels, worker], value)
            if family.samples:
                yield family


def render(samples: Mapping[str, Samples], accept: str) -> tuple[bytes, str]:
    """The page and its content type, in the format that the client accepts."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SamplesCollector(samples))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _create_family(metric: Metric) -> Family:
    labels = [*metric.labels, WORKER]
    if metric.kind is Kind.COUNTER:
        return CounterMetricFamily(metric.name, metric.meaning, labels=labels)
    if metric.kind is Kind.GAUGE:
        return GaugeMetricFamily(metric.name, metric.meaning, labels=labels)
    return HistogramMetricFamily(metric.name, metric.meaning, labels=labels)


def _add(family: Family, labels: list[str], value: Value) -> None:
    if isinstance(family, HistogramMetricFamily):
        assert not isinstance(value, float | int)
        counts, total = value
        family.add_metric(labels, buckets=list(_cumulative(counts)), sum_value=total)
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        assert isinstance(value, float | int)
        family.add_metric(labels, value)


def _cumulative(counts: Iterable[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip(_BOUNDS, counts, strict=True):
        total += count
        yield bound, total
