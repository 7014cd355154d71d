"""Which write brought which message: exact for as long as it is remembered, and then nothing."""

from hypothesis import given
from hypothesis import strategies as st

from server.core.recovery.write_index import BatchIndex, WriteIndex


def test_a_write_says_how_far_it_had_brought_who_gets_all() -> None:
    written = WriteIndex(4, max_messages=10)
    for serial in (3, 5, 6):
        written.append(serial, 1000 + serial)
    assert [written.seq_at(serial, 4) for serial in (2, 3, 4, 5, 6, 99)] == [4, 5, 5, 6, 7, 7]
    assert written.seq_at(3, 6) == 6, "who came later has more than that"
    assert [written.ts_after(seq) for seq in (3, 4, 5, 6, 7)] == [None, 1003, 1005, 1006, None]


def test_what_does_not_follow_on_leads_nowhere() -> None:
    written = WriteIndex(0, max_messages=10)
    written.append(1, 1000)
    written.restart(7)
    assert written.seq_at(1, 0) is None
    written.append(2, 2000)
    assert (written.seq_at(2, 0), written.ts_after(7)) == (8, 2000)


@given(st.lists(st.integers(1, 3), max_size=30), st.integers(1, 8), st.integers(0, 20))
def test_what_is_remembered_is_what_was_written(gaps: list[int], room: int, first: int) -> None:
    written = WriteIndex(first, max_messages=room)
    serials: list[int] = []
    for gap in gaps:
        serials.append((serials[-1] if serials else 0) + gap)
        written.append(serials[-1], serials[-1] * 10)
    forgotten = max(0, len(serials) - room)
    for serial in range(sum(gaps) + 2):
        count = sum(each <= serial for each in serials)
        seq = written.seq_at(serial, first)
        known = count >= forgotten
        assert seq == (first + count if known else None)
    for index, serial in enumerate(serials):
        assert written.ts_after(first + index) == (serial * 10 if index >= forgotten else None)


def test_a_round_brings_all_that_had_come_until_then() -> None:
    rounds = BatchIndex(max_batches=2)
    assert rounds.seq_at(5, 3) == 3
    rounds.append(10, 6)
    rounds.append(20, 9)
    assert [rounds.seq_at(serial, 3) for serial in (9, 10, 19, 20)] == [3, 6, 6, 9]
    assert rounds.seq_at(10, 8) == 8
    rounds.append(30, 12)
    assert [rounds.seq_at(serial, 3) for serial in (19, 20, 30)] == [None, 9, 12]
