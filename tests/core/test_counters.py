"""Counters: they only rise, and return copies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.counters import Counters
from server.core.histograms import BOUNDS_SECONDS, Histogram


def test_new_counters_are_empty_and_independent() -> None:
    one, other = Counters(), Counters()
    one.count_event("/market", "subscribe", "ok", 0.5)
    assert other.events() == {}
    assert other.seconds() == {}


def test_counters_count_outcomes_and_add_up_seconds() -> None:
    counters = Counters()
    counters.count_event("/market", "subscribe", "ok", 0.25)
    counters.count_event("/market", "subscribe", "ok", 0.5)
    counters.count_event("/market", "subscribe", "limit.rate", 0.125)
    counters.count_event("/session", "subscribe", "ok", 1.0)
    assert counters.events() == {
        ("/market", "subscribe", "ok"): 2,
        ("/market", "subscribe", "limit.rate"): 1,
        ("/session", "subscribe", "ok"): 1,
    }
    assert counters.seconds() == {("/market", "subscribe"): 0.875, ("/session", "subscribe"): 1.0}


def test_event_of_zero_seconds_is_counted() -> None:
    counters = Counters()
    counters.count_event("/market", "ping", "ok", 0.0)
    assert counters.events() == {("/market", "ping", "ok"): 1}
    assert counters.seconds() == {("/market", "ping"): 0.0}


def test_returned_counts_are_copies() -> None:
    counters = Counters()
    counters.count_event("/market", "ping", "ok", 1.0)
    events, seconds = counters.events(), counters.seconds()
    counters.count_event("/market", "ping", "ok", 1.0)
    assert events == {("/market", "ping", "ok"): 1}
    assert seconds == {("/market", "ping"): 1.0}
    events.clear()
    seconds.clear()
    assert counters.events() == {("/market", "ping", "ok"): 2}
    assert counters.seconds() == {("/market", "ping"): 2.0}


kinds = st.tuples(
    st.sampled_from(["/market", "/session"]),
    st.sampled_from(["join", "leave"]),
    st.sampled_from(["ok", "limit.rate", "auth.forbidden"]),
    st.floats(0, 10),
)


@given(st.lists(kinds, max_size=40))
def test_counters_agree_with_the_list_of_events(
    handled: list[tuple[str, str, str, float]],
) -> None:
    counters = Counters()
    for each in handled:
        counters.count_event(*each)
    keys = [each[:3] for each in handled]
    assert counters.events() == {key: keys.count(key) for key in keys}
    for kind, seconds in counters.seconds().items():
        assert seconds == pytest.approx(sum(each[3] for each in handled if each[:2] == kind))
    assert set(counters.seconds()) == {each[:2] for each in handled}


def test_label_sets_of_one_name_are_bounded() -> None:
    counters = Counters()
    for number in range(5_000):
        counters.count("clients.left", "/market", f"reason {number}")
        counters.histogram("delivery.age", str(number), "0").observe(0.01)
    assert len(counters.labelled("clients.left")) == 1_001
    assert counters.labelled("clients.left")["(other)", "(other)"] == 4_000
    assert len(counters.histograms("delivery.age")) == 1_001
    counters.count("clients.left", "/market", "reason 0")
    assert counters.labelled("clients.left")["/market", "reason 0"] == 2


def test_histogram_counts_durations_by_bucket() -> None:
    histogram = Histogram()
    for seconds in (-1.0, 0.0001, 0.00011, 30.0, 31.0):
        histogram.observe(seconds)
    histogram.observe(0.01, 5)
    counts = dict(zip((*BOUNDS_SECONDS, None), histogram.counts, strict=True))
    assert (counts[0.0001], counts[0.00025], counts[0.01], counts[30.0]) == (2, 1, 5, 1)
    assert counts[None] == 1
    assert histogram.sum == pytest.approx(61.0502 + 0.00001)
