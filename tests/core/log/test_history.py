"""History: all entries since a position, or None if some are gone."""

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


def test_history_returns_all_missed_entries_or_none() -> None:
    history = filled(8)
    assert [each.position.seq for each in history.since(5) or ()] == [6, 7, 8]
    assert [each.position.seq for each in history.since(3) or ()] == [4, 5, 6, 7, 8]
    assert history.since(2) is None
    assert history.since(8) == []
    assert filled(0).since(0) == []


def test_append_returns_dropped_entries_and_keeps_the_newest() -> None:
    history = History(max_messages=3, max_bytes=10)
    assert history.append(entry(1, 4)) == []
    assert history.append(entry(2, 4)) == []
    assert [each.position.seq for each in history.append(entry(3, 50))] == [1, 2]
    assert (len(history), history.size_bytes) == (1, 50)
    assert history.oldest is history.newest


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 8), st.integers(1, 30))
def test_history_keeps_its_bounds_and_its_size(
    sizes: list[int], max_messages: int, max_bytes: int
) -> None:
    history = History(max_messages=max_messages, max_bytes=max_bytes)
    for seq, size in enumerate(sizes, 1):
        history.append(entry(seq, size))
        entries = history.since((history.oldest or entry(1)).position.seq - 1) or []
        assert [each.position.seq for each in entries] == list(
            range(seq - len(entries) + 1, seq + 1)
        )
        assert history.size_bytes == sum(len(each.data) for each in entries)
        assert len(entries) <= max_messages
        assert history.size_bytes <= max_bytes or len(entries) == 1


def test_history_drops_old_entries_and_keeps_the_newest() -> None:
    history = History(max_messages=9, max_bytes=1000, max_age_ms=3)
    for seq in range(1, 6):
        dropped = history.append(entry(seq))
        assert [each.position.seq for each in dropped] == ([seq - 3] if seq > 3 else [])
    assert [each.position.seq for each in history.since(2) or ()] == [3, 4, 5]
    assert [each.position.seq for each in history.expire(100)] == [3, 4]
    assert len(history) == 1


def test_pages_end_at_the_newest_or_before_an_entry() -> None:
    history = filled(8)
    assert [each.position.seq for each in history.before(None, 2)] == [7, 8]
    assert [each.position.seq for each in history.before(7, 2)] == [5, 6]
    assert [each.position.seq for each in history.before(5, 9)] == [4]
    assert history.before(3, 9) == []
    assert history.before(99, 1) == history.since(7)
    assert filled(0).before(None, 5) == []


def test_prepend_adds_older_entries_without_a_gap() -> None:
    history = History(max_messages=4, max_bytes=1000)
    for seq in (5, 6):
        history.append(entry(seq))
    history.prepend([entry(seq) for seq in (1, 2)])
    assert [each.position.seq for each in history.before(None, 9)] == [5, 6], (
        "they would leave a gap"
    )
    history.prepend([entry(seq) for seq in range(1, 7)])
    assert [each.position.seq for each in history.before(None, 9)] == [3, 4, 5, 6]
    history.append(entry(7))
    assert [each.position.seq for each in history.before(None, 9)] == [4, 5, 6, 7]
