"""History: the exact suffix that somebody missed, or the truth that it is gone."""

from hypothesis import given
from hypothesis import strategies as st

from server.core.log.entries import Entry, Position
from server.core.log.history import History


def entry(seq: int, size: int = 1) -> Entry:
    return Entry("A", Position("e1", seq), seq, b"x" * size)


def filled(count: int, *, max_messages: int = 5, max_bytes: int = 1000) -> History:
    history = History(max_messages=max_messages, max_bytes=max_bytes)
    for seq in range(1, count + 1):
        history.append(entry(seq))
    return history


def test_what_was_missed_comes_back_whole_or_not_at_all() -> None:
    history = filled(8)
    assert [each.position.seq for each in history.since(5) or ()] == [6, 7, 8]
    assert [each.position.seq for each in history.since(3) or ()] == [4, 5, 6, 7, 8]
    assert history.since(2) is None
    assert history.since(8) == []
    assert filled(0).since(0) == []


def test_what_had_to_go_is_told_and_the_newest_always_stays() -> None:
    history = History(max_messages=3, max_bytes=10)
    assert history.append(entry(1, 4)) == []
    assert history.append(entry(2, 4)) == []
    assert [each.position.seq for each in history.append(entry(3, 50))] == [1, 2]
    assert (len(history), history.size_bytes) == (1, 50)
    assert history.oldest is history.newest


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 8), st.integers(1, 30))
def test_the_bounds_hold_and_the_sizes_add_up(
    sizes: list[int], max_messages: int, max_bytes: int
) -> None:
    history = History(max_messages=max_messages, max_bytes=max_bytes)
    for seq, size in enumerate(sizes, 1):
        history.append(entry(seq, size))
        kept = history.since((history.oldest or entry(1)).position.seq - 1) or []
        assert [each.position.seq for each in kept] == list(range(seq - len(kept) + 1, seq + 1))
        assert history.size_bytes == sum(len(each.data) for each in kept)
        assert len(kept) <= max_messages
        assert history.size_bytes <= max_bytes or len(kept) == 1


def test_what_has_become_too_old_goes_and_the_newest_stays() -> None:
    history = History(max_messages=9, max_bytes=1000, max_age_ms=3)
    for seq in range(1, 6):
        gone = history.append(entry(seq))
        assert [each.position.seq for each in gone] == ([seq - 3] if seq > 3 else [])
    assert [each.position.seq for each in history.since(2) or ()] == [3, 4, 5]
    assert [each.position.seq for each in history.expire(100)] == [3, 4]
    assert len(history) == 1


def test_pages_go_backwards_from_the_newest_or_from_a_message() -> None:
    history = filled(8)
    assert [each.position.seq for each in history.before(None, 2)] == [7, 8]
    assert [each.position.seq for each in history.before(7, 2)] == [5, 6]
    assert [each.position.seq for each in history.before(5, 9)] == [4]
    assert history.before(3, 9) == []
    assert history.before(99, 1) == history.since(7)
    assert filled(0).before(None, 5) == []


def test_what_came_before_the_first_is_taken_as_far_as_there_is_room() -> None:
    history = History(max_messages=4, max_bytes=1000)
    for seq in (5, 6):
        history.append(entry(seq))
    history.prepend([entry(seq) for seq in (1, 2)])
    assert [each.position.seq for each in history.before(None, 9)] == [5, 6], (
        "a gap would be between them"
    )
    history.prepend([entry(seq) for seq in range(1, 7)])
    assert [each.position.seq for each in history.before(None, 9)] == [3, 4, 5, 6]
    history.append(entry(7))
    assert [each.position.seq for each in history.before(None, 9)] == [4, 5, 6, 7]
