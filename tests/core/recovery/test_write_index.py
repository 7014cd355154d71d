"""Write indexes: exact for the newest writes, None for older ones."""

from hypothesis import given
from hypothesis import strategies as st

from server.core.recovery.write_index import BatchIndex, DerivedWriteIndex, WriteIndex


def test_write_index_maps_serials_to_entries() -> None:
    index = WriteIndex(4, max_messages=10)
    for serial in (3, 5, 6):
        index.append(serial, 1000 + serial)
    assert [index.seq_at(serial, 4) for serial in (2, 3, 4, 5, 6, 99)] == [4, 5, 5, 6, 7, 7]
    assert index.seq_at(3, 6) == 6, "a later subscriber starts further on"
    assert [index.ts_after(seq) for seq in (3, 4, 5, 6, 7)] == [None, 1003, 1005, 1006, None]


def test_restarted_write_index_forgets_earlier_writes() -> None:
    index = WriteIndex(0, max_messages=10)
    index.append(1, 1000)
    index.restart(7)
    assert index.seq_at(1, 0) is None
    index.append(2, 2000)
    assert (index.seq_at(2, 0), index.ts_after(7)) == (8, 2000)


@given(st.lists(st.integers(1, 3), max_size=30), st.integers(1, 8), st.integers(0, 20))
def test_write_index_agrees_with_the_list_of_writes(
    gaps: list[int], max_messages: int, first: int
) -> None:
    index = WriteIndex(first, max_messages=max_messages)
    serials: list[int] = []
    for gap in gaps:
        serials.append((serials[-1] if serials else 0) + gap)
        index.append(serials[-1], serials[-1] * 10)
    dropped = max(0, len(serials) - max_messages)
    for serial in range(sum(gaps) + 2):
        count = sum(each <= serial for each in serials)
        seq = index.seq_at(serial, first)
        known = count >= dropped
        assert seq == (first + count if known else None)
    for number, serial in enumerate(serials):
        assert index.ts_after(first + number) == (serial * 10 if number >= dropped else None)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), max_size=30),
    st.integers(1, 8),
    st.integers(0, 20),
)
def test_derived_write_index_agrees_with_the_list_of_writes(
    gaps: list[tuple[int, int]], max_messages: int, first: int
) -> None:
    index = DerivedWriteIndex(first, max_messages=max_messages)
    writes: list[tuple[int, int]] = [(0, first)]
    for gap, hole in gaps:
        writes.append((writes[-1][0] + gap, writes[-1][1] + hole))
        serial, seq = writes[-1]
        index.append(serial, serial * 10, seq)
    dropped = max(0, len(gaps) - max_messages)
    for serial in range(writes[-1][0] + 2):
        count = sum(each <= serial for each, _ in writes[1:])
        assert index.seq_at(serial, first) == (writes[count][1] if count >= dropped else None)
    for seq in range(first, writes[-1][1] + 2):
        count = sum(each <= seq for _, each in writes[1:])
        is_known = count >= dropped and count < len(gaps) and seq >= writes[dropped][1]
        assert index.ts_after(seq) == (writes[count + 1][0] * 10 if is_known else None)
    index.restart(first)
    assert (index.seq_at(99, first), index.ts_after(first)) == (first, None)


def test_batch_index_maps_a_write_to_its_newest_entry() -> None:
    batches = BatchIndex(max_batches=2)
    assert batches.seq_at(5, 3) == 3
    batches.append(10, 6)
    batches.append(20, 9)
    assert [batches.seq_at(serial, 3) for serial in (9, 10, 19, 20)] == [3, 6, 6, 9]
    assert batches.seq_at(10, 8) == 8
    batches.append(30, 12)
    assert [batches.seq_at(serial, 3) for serial in (19, 20, 30)] == [None, 9, 12]
