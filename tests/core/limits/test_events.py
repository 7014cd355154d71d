"""Event limits: refusals over the rate, and flooding as distinct from impatience."""

import pytest

from server.core.limits.events import EventLimits, RateOutcome, event_cost


@pytest.mark.behaviour("D46")
def test_event_limits_refuse_and_then_report_flooding() -> None:
    events = EventLimits(per_second=10, burst=5)
    events.open("c1", "acme", "ann", 0)
    decisions = [events.check("c1", 0) for _ in range(16)]
    assert [each.outcome for each in decisions] == (
        [RateOutcome.GRANTED] * 5 + [RateOutcome.REFUSED] * 10 + [RateOutcome.FLOODING]
    )
    assert decisions[5].retry_after_ms == 100
    assert events.check("c1", 10).outcome is RateOutcome.GRANTED


def test_client_that_waits_is_never_reported_as_flooding() -> None:
    events = EventLimits(per_second=10, burst=5)
    events.open("c1", "acme", "ann", 0)
    now = 0.0
    for _ in range(500):
        decision = events.check("c1", now)
        assert decision.outcome is not RateOutcome.FLOODING
        now += decision.retry_after_ms / 1000


def test_connections_of_one_user_share_four_times_the_rate() -> None:
    events = EventLimits(per_second=10, burst=5)
    for i in range(6):
        events.open(f"c{i}", "acme", "ann", 0)
    granted = sum(
        events.check(f"c{i}", 0).outcome is RateOutcome.GRANTED for i in range(6) for _ in range(5)
    )
    assert granted == 20
    for i in range(6):
        events.close(f"c{i}")
        events.close(f"c{i}")
    assert events.tracked_count() == 0


def test_event_rate_of_0_counts_nothing() -> None:
    events = EventLimits(per_second=0, burst=0)
    events.open("c1", "acme", "ann", 0)
    assert all(events.check("c1", 0).outcome is RateOutcome.GRANTED for _ in range(1000))
    assert events.tracked_count() == 0


def test_refusal_of_the_user_costs_the_connection_nothing() -> None:
    events = EventLimits(per_second=10, burst=5)
    for i in range(5):
        events.open(f"c{i}", "acme", "ann", 0)
        for _ in range(5):
            events.check(f"c{i}", 0)
    # The user's bucket is empty and gains a token every 25 ms.
    decisions = [events.check("c4", 0.025 * step).outcome for step in range(1, 6)]
    assert decisions == [RateOutcome.GRANTED] * 5


def test_reopened_connection_forgets_its_first_user() -> None:
    events = EventLimits(per_second=1, burst=1)
    events.open("c1", "acme", "ann", 0)
    events.open("c1", "acme", "bob", 0)
    assert events.tracked_count() == 2
    assert events.check("c1", 0).outcome is RateOutcome.GRANTED
    events.close("c1")
    assert events.tracked_count() == 0


def test_large_event_costs_more_and_always_fits_a_full_bucket() -> None:
    assert event_cost(0) == event_cost(1023) == 1.0
    assert event_cost(128 * 1024) == 9.0
    events = EventLimits(per_second=10, burst=5)
    events.open("c1", "acme", "ann", 0)
    assert events.check("c1", 0, 9.0).outcome is RateOutcome.GRANTED
    assert events.check("c1", 0).retry_after_ms == 100
    assert events.check("c1", 0.1).outcome is RateOutcome.GRANTED


def test_items_of_a_granted_event_are_paid_by_later_events() -> None:
    events = EventLimits(per_second=10, burst=5)
    events.open("c1", "acme", "ann", 0)
    assert events.check("c1", 0).outcome is RateOutcome.GRANTED
    events.charge_items("c1", 1)
    assert events.check("c1", 0).outcome is RateOutcome.GRANTED
    # 999 further items cost 20 events, three of which are left: 18 more take 1.8 s.
    events.charge_items("c1", 1000)
    assert events.check("c1", 0).retry_after_ms == 1798
    assert events.check("c1", 1.8).outcome is RateOutcome.GRANTED
    events.charge_items("unknown", 1000)
