"""The backlog: lags instead of messages, round robin, and an interval that adapts."""

from client_sdk.contract import INTERVALS_MS
from server.core.log.backlog import (
    OVERFLOW_WINDOW_SECONDS,
    OVERFLOWS_TO_WIDEN,
    STEADY_SECONDS,
    Backlog,
)


def test_backlog_holds_each_topic_once() -> None:
    backlog: Backlog[str] = Backlog()
    backlog.put("A")
    backlog.put("A")
    assert len(backlog) == 1
    backlog.drop("A")
    backlog.drop("A")
    assert len(backlog) == 0
    assert backlog.next_key() is None


def test_backlog_serves_topics_round_robin() -> None:
    backlog: Backlog[str] = Backlog()
    for topic in "ABC":
        backlog.put(topic)
    assert [backlog.next_key() for _ in range(7)] == ["A", "B", "C", "A", "B", "C", "A"]


def test_repeated_overflows_widen_the_interval_by_steps() -> None:
    backlog: Backlog[str] = Backlog()
    for interval_ms in (100, 250, 1000):
        assert [backlog.record_overflow(9.0) for _ in range(OVERFLOWS_TO_WIDEN)] == [False] * 3 + [
            True
        ]
        assert backlog.interval_ms == interval_ms
    assert not any(backlog.record_overflow(9.0) for _ in range(2 * OVERFLOWS_TO_WIDEN))
    assert backlog.interval_ms == 1000


def test_rare_overflows_do_not_widen_the_interval() -> None:
    backlog: Backlog[str] = Backlog()
    for number in range(20):
        assert not backlog.record_overflow(number * (OVERFLOW_WINDOW_SECONDS + 0.1))
    assert backlog.interval_ms == 0


def test_steady_client_gets_its_interval_narrowed_by_steps() -> None:
    backlog: Backlog[str] = Backlog()
    for _ in range(2 * OVERFLOWS_TO_WIDEN):
        backlog.record_overflow(0.0)
    assert backlog.interval_ms == 250
    assert not backlog.try_narrow(STEADY_SECONDS - 0.1)
    assert backlog.try_narrow(STEADY_SECONDS)
    assert not backlog.try_narrow(STEADY_SECONDS + 0.1), "each step needs its own steady time"
    assert backlog.try_narrow(2 * STEADY_SECONDS)
    assert backlog.interval_ms == INTERVALS_MS[0]
    assert not backlog.try_narrow(10 * STEADY_SECONDS)


def test_stall_lasts_since_the_last_taken_byte() -> None:
    backlog: Backlog[str] = Backlog()
    assert backlog.update_stall(10.0, 500) == 0.0
    assert backlog.update_stall(25.0, 500) == 15.0
    assert backlog.update_stall(26.0, 501) == 0.0
    assert backlog.update_stall(27.0, 501) == 1.0
    backlog.clear_stall()
    assert backlog.update_stall(90.0, 501) == 0.0
