"""Deadlines: each key once, never early, at most one slot late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.deadlines import Deadlines

SLOT = 0.03125


def test_key_is_due_once_at_its_deadline() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 10.0)
    deadlines.set("b", 20.0)
    assert deadlines.pop_due(9.9) == []
    assert deadlines.pop_due(10.0) == ["a"]
    assert deadlines.pop_due(10.0) == []
    assert len(deadlines) == 1
    assert deadlines.pop_due(100.0) == ["b"]


def test_deadline_between_two_slots_is_due_at_the_later_one() -> None:
    deadlines: Deadlines[str] = Deadlines(resolution_seconds=SLOT)
    deadlines.set("a", 10 + SLOT / 3)
    assert deadlines.pop_due(10 + SLOT / 4) == []
    assert deadlines.pop_due(10 + SLOT) == ["a"]


def test_last_deadline_of_a_key_counts() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for when in (5.0, 50.0, 7.0, 7.0):
        deadlines.set("a", when)
    assert deadlines.pop_due(6.0) == []
    assert deadlines.pop_due(8.0) == ["a"]
    assert deadlines.pop_due(60.0) == []


def test_cancelled_key_is_never_due() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 1.0)
    deadlines.cancel("a")
    deadlines.cancel("nobody")
    assert deadlines.pop_due(10.0) == []
    assert len(deadlines) == 0


def test_past_deadline_is_due_at_the_next_call() -> None:
    deadlines: Deadlines[str] = Deadlines()
    assert deadlines.pop_due(100.0) == []
    deadlines.set("a", 3.0)
    assert deadlines.pop_due(100.0 + SLOT) == ["a"]


def test_every_key_is_due_at_infinity() -> None:
    deadlines: Deadlines[str] = Deadlines()
    assert deadlines.pop_due(float("inf")) == []
    deadlines.set("a", 1e9)
    assert deadlines.pop_due(float("inf")) == ["a"]


def test_resetting_a_key_keeps_one_entry() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for i in range(1000):
        deadlines.set("a", float(i))
    assert len(deadlines) == 1
    assert sum(map(len, deadlines._slots.values())) == 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.integers(0, 5), st.floats(0, 50)),
            st.tuples(st.just("cancel"), st.integers(0, 5), st.just(0.0)),
            st.tuples(st.just("pop"), st.just(0), st.floats(0, 5)),
        ),
        max_size=60,
    )
)
def test_any_sequence_reports_each_key_once_and_on_time(
    steps: list[tuple[str, int, float]],
) -> None:
    deadlines: Deadlines[int] = Deadlines()
    model: dict[int, float] = {}
    now = 0.0
    for step, key, number in steps:
        if step == "set":
            deadlines.set(key, now + number)
            model[key] = now + number
        elif step == "cancel":
            deadlines.cancel(key)
            model.pop(key, None)
        else:
            now += number
            for due in deadlines.pop_due(now):
                assert model.pop(due) <= now
            assert all(when > now - 2 * SLOT for when in model.values())
        assert len(deadlines) == len(model)


@pytest.mark.parametrize("count", [10, 10_000])
def test_pop_due_returns_only_due_keys_of_many(count: int) -> None:
    deadlines: Deadlines[int] = Deadlines()
    for key in range(count):
        deadlines.set(key, 1000.0 + key)
    assert deadlines.pop_due(1.0) == []
    assert deadlines.pop_due(1.0 + SLOT) == []
    assert deadlines.pop_due(1000.0) == [0]
