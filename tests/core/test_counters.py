"""Counters: they rise by what happened, and what they hand out is a copy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.counters import Counters


def test_new_counters_have_counted_nothing_and_share_nothing() -> None:
    one, other = Counters(), Counters()
    one.count_event("/market", "subscribe", "ok", 0.5)
    assert other.events() == {}
    assert other.seconds() == {}


def test_events_are_counted_by_outcome_and_their_time_by_kind() -> None:
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


def test_an_event_that_took_no_time_is_counted_all_the_same() -> None:
    counters = Counters()
    counters.count_event("/market", "ping", "ok", 0.0)
    assert counters.events() == {("/market", "ping", "ok"): 1}
    assert counters.seconds() == {("/market", "ping"): 0.0}


def test_what_is_handed_out_cannot_change_the_counts_and_does_not_change_with_them() -> None:
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
def test_whatever_happens_the_sums_are_those_of_the_list(
    happened: list[tuple[str, str, str, float]],
) -> None:
    counters = Counters()
    for each in happened:
        counters.count_event(*each)
    keys = [each[:3] for each in happened]
    assert counters.events() == {key: keys.count(key) for key in keys}
    for kind, seconds in counters.seconds().items():
        assert seconds == pytest.approx(sum(each[3] for each in happened if each[:2] == kind))
    assert set(counters.seconds()) == {each[:2] for each in happened}
