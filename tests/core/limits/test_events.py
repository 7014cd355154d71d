"""Events: refused over the rate, and hammering is told from impatience."""

import pytest

from server.core.limits.events import EventLimits, RateOutcome


@pytest.mark.behaviour("D46")
def test_events_over_the_rate_are_refused_and_hammering_is_seen() -> None:
    events = EventLimits(per_second=10, burst=5)
    events.open("c1", "acme", "ann", 0)
    verdicts = [events.check("c1", 0) for _ in range(16)]
    assert [each.outcome for each in verdicts] == (
        [RateOutcome.GRANTED] * 5 + [RateOutcome.REFUSED] * 10 + [RateOutcome.FLOODING]
    )
    assert verdicts[5].retry_after_ms == 100
    assert events.check("c1", 10).outcome is RateOutcome.GRANTED


def test_who_waits_as_told_is_never_taken_for_hammering() -> None:
    events = EventLimits(per_second=10, burst=5)
    events.open("c1", "acme", "ann", 0)
    now = 0.0
    for _ in range(500):
        ruling = events.check("c1", now)
        assert ruling.outcome is not RateOutcome.FLOODING
        now += ruling.retry_after_ms / 1000


def test_the_connections_of_one_user_share_four_times_the_allowance() -> None:
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


def test_without_a_rate_nothing_is_counted() -> None:
    events = EventLimits(per_second=0, burst=0)
    events.open("c1", "acme", "ann", 0)
    assert all(events.check("c1", 0).outcome is RateOutcome.GRANTED for _ in range(1000))
    assert events.tracked_count() == 0


def test_what_the_user_may_not_send_costs_the_connection_nothing() -> None:
    events = EventLimits(per_second=10, burst=5)
    for i in range(5):
        events.open(f"c{i}", "acme", "ann", 0)
        for _ in range(5):
            events.check(f"c{i}", 0)
    # All of the user's tokens are gone; from now on there is one every 25 ms.
    verdicts = [events.check("c4", 0.025 * step).outcome for step in range(1, 6)]
    assert verdicts == [RateOutcome.GRANTED] * 5


def test_a_connection_that_is_opened_again_leaves_nothing_of_its_first_user() -> None:
    events = EventLimits(per_second=1, burst=1)
    events.open("c1", "acme", "ann", 0)
    events.open("c1", "acme", "bob", 0)
    assert events.tracked_count() == 2
    assert events.check("c1", 0).outcome is RateOutcome.GRANTED
    events.close("c1")
    assert events.tracked_count() == 0
