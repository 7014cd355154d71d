"""The counters of several processes, added up: those of ended workers stay in the sums."""

from collections.abc import Iterable

from server.core.counters import Labels
from server.metrics.catalogue import METRICS, Kind
from server.metrics.samples import Samples, Value

_TOTALS = frozenset(metric.name for metric in METRICS if metric.kind is not Kind.GAUGE)
# Of the gauges those that count what a process still has, while it drains.
_AMOUNTS = frozenset(
    (
        "floorcast_connections_open",
        "floorcast_clients_joined",
        "floorcast_delivery_slow_clients",
        "floorcast_delivery_waiting_bytes",
        "floorcast_drain_begun_connections",
        "floorcast_drain_remaining_connections",
        "floorcast_presence_users",
        "floorcast_process_descriptors_open",
        "floorcast_process_memory_bytes",
        "floorcast_recovery_parked",
        "floorcast_sessions_members",
    )
)


def amounts(samples: Samples) -> Samples:
    """The gauges that count what a draining process still has."""
    return Samples({name: samples.values[name] for name in samples.values.keys() & _AMOUNTS})


def totals(several: Iterable[Samples]) -> Samples:
    """The counters and histograms of several processes, added up."""
    sums: dict[str, dict[Labels, Value]] = {}
    for samples in several:
        for name in samples.values.keys() & _TOTALS:
            by_labels = sums.setdefault(name, {})
            for labels, value in samples.values[name]:
                by_labels[labels] = _added(by_labels.get(labels), value)
    return Samples({name: list(by_labels.items()) for name, by_labels in sums.items()})


def with_earlier(samples: Samples, earlier: Iterable[Samples]) -> Samples:
    """The samples of a process, whose counters go on from those of earlier ones."""
    return Samples({**samples.values, **totals((*earlier, samples)).values})


def _added(one: Value | None, other: Value) -> Value:
    if one is None:
        return other
    if isinstance(one, float | int):
        return one + other if isinstance(other, float | int) else other
    if isinstance(other, float | int) or len(one[0]) != len(other[0]):
        # Another release counts differently.
        return other
    counts = [a + b for a, b in zip(one[0], other[0], strict=True)]
    return counts, one[1] + other[1]
