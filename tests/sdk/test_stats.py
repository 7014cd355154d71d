"""Counters and latency percentiles."""

import random
import statistics

from client_sdk.stats import Counters, Latencies, Latency


def test_percentiles_are_exact_to_ten_percent() -> None:
    draw = random.Random(1)
    values = [draw.lognormvariate(1.0, 2.0) for _ in range(10_000)]
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    summary = latencies.summary()
    exact = statistics.quantiles(values, n=100)
    assert summary.count == 10_000
    assert summary.max_ms == max(values)
    for actual, expected in ((summary.p50_ms, exact[49]), (summary.p90_ms, exact[89])):
        assert expected * 0.9 <= actual <= expected * 1.12
    assert exact[98] * 0.9 <= summary.p99_ms <= exact[98] * 1.12


def test_latencies_accept_extremes() -> None:
    latencies = Latencies()
    assert latencies.summary() == Latency()
    latencies.add(0.0)
    assert latencies.summary().p99_ms == 0.0
    latencies.add(1e12)
    assert latencies.summary().max_ms == 1e12


def test_stats_snapshot_is_immutable() -> None:
    counters = Counters()
    before = counters.snapshot(0.0)
    counters.received += 1
    counters.merged += 1
    assert (before.received, before.merged) == (0, 0)
    after = counters.snapshot(2.5)
    assert (after.received, after.merged, after.clock_offset_ms) == (1, 1, 2.5)
