"""The outbox: positions instead of messages, topics in turn, and a ladder of patience."""

from client_sdk.contract import INTERVALS_MS
from server.core.log.backlog import (
    OVERFLOW_WINDOW_SECONDS,
    OVERFLOWS_TO_WIDEN,
    STEADY_SECONDS,
    Backlog,
    Lag,
)


def test_it_knows_where_the_client_stands_in_each_topic_it_is_behind_in() -> None:
    outbox: Backlog[str] = Backlog()
    lag = Lag(7, oldest_ms=1000)
    outbox.put("A", lag)
    assert outbox.get("A") is lag
    assert outbox.get("B") is None
    assert list(outbox) == ["A"]
    outbox.drop("A")
    outbox.drop("A")
    assert len(outbox) == 0
    assert outbox.next_key() is None


def test_topics_are_served_in_turn_so_that_none_starves_another() -> None:
    outbox: Backlog[str] = Backlog()
    for topic in "ABC":
        outbox.put(topic, Lag(0))
    assert [outbox.next_key() for _ in range(7)] == ["A", "B", "C", "A", "B", "C", "A"]


def test_who_falls_behind_again_and_again_is_served_less_often_step_by_step() -> None:
    outbox: Backlog[str] = Backlog()
    for pace in (100, 250, 1000):
        assert [outbox.record_overflow(9.0) for _ in range(OVERFLOWS_TO_WIDEN)] == [False] * 3 + [
            True
        ]
        assert outbox.interval_ms == pace
    assert not any(outbox.record_overflow(9.0) for _ in range(2 * OVERFLOWS_TO_WIDEN))
    assert outbox.interval_ms == 1000


def test_falls_that_are_far_apart_do_not_count_together() -> None:
    outbox: Backlog[str] = Backlog()
    for number in range(20):
        assert not outbox.record_overflow(number * (OVERFLOW_WINDOW_SECONDS + 0.1))
    assert outbox.interval_ms == 0


def test_who_keeps_up_for_a_while_is_served_more_often_again_step_by_step() -> None:
    outbox: Backlog[str] = Backlog()
    for _ in range(2 * OVERFLOWS_TO_WIDEN):
        outbox.record_overflow(0.0)
    assert outbox.interval_ms == 250
    assert not outbox.try_narrow(STEADY_SECONDS - 0.1)
    assert outbox.try_narrow(STEADY_SECONDS)
    assert not outbox.try_narrow(STEADY_SECONDS + 0.1), "each step takes its time"
    assert outbox.try_narrow(2 * STEADY_SECONDS)
    assert outbox.interval_ms == INTERVALS_MS[0]
    assert not outbox.try_narrow(10 * STEADY_SECONDS)


def test_a_stall_lasts_from_the_last_byte_that_was_taken() -> None:
    outbox: Backlog[str] = Backlog()
    assert outbox.update_stall(10.0, 500) == 0.0
    assert outbox.update_stall(25.0, 500) == 15.0
    assert outbox.update_stall(26.0, 501) == 0.0
    assert outbox.update_stall(27.0, 501) == 1.0
    outbox.clear_stall()
    assert outbox.update_stall(90.0, 501) == 0.0
