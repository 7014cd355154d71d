"""Counters: they only rise, and return copies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.counters import Counters


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
