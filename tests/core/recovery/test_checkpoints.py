"""Checkpoints of a client, against a plain list of what it was sent."""

from hypothesis import given
from hypothesis import strategies as st

from server.core.recovery.checkpoints import (
    MAX_CHECKPOINTS,
    MAX_CHECKPOINTS_TOTAL,
    Checkpoint,
    Checkpoints,
    ReplyPosition,
    ResumeRange,
)
from server.core.recovery.write_index import BatchIndex, WriteIndex

steps = st.lists(
    st.tuples(st.sampled_from(["others", "write", "lag", "replay", "jump"]), st.integers(1, 4)),
    max_size=40,
)


@given(steps)
def test_checkpoints_know_the_seq_at_any_write(moves: list[tuple[str, int]]) -> None:
    checkpoints = Checkpoints(ResumeRange(0))
    index = WriteIndex(0, max_messages=1000)
    checkpoints.add(Checkpoint(0, 0, shared_index=index))
    serial = head = seq = 0
    up_to_date = True
    sent = [0]
    for move, count in moves:
        if move == "lag" and up_to_date:
            up_to_date = False
            checkpoints.add(Checkpoint(serial + 1, seq))
        elif move in ("replay", "jump") and not up_to_date:
            behind = head - seq
            step_count = min(count, behind) if move == "replay" else 1
            if not behind:
                continue
            if move == "replay":
                checkpoints.add(Checkpoint(serial + 1, seq, steps=step_count))
            else:
                checkpoints.add(Checkpoint(serial + 1, head))
            for _ in range(step_count):
                serial += 1
                seq = seq + 1 if move == "replay" else head
                sent.append(seq)
            if seq == head:
                up_to_date = True
                checkpoints.add(Checkpoint(serial, head, shared_index=index))
        else:
            for _ in range(count):
                serial += 1
                if move != "others":
                    head += 1
                    index.append(serial, 0)
                    seq = head if up_to_date else seq
                sent.append(seq)
    for number, expected in enumerate(sent):
        checkpoint = checkpoints.find(number)
        if checkpoint is None:
            assert checkpoints._is_truncated
        else:
            assert checkpoint.seq_at(number) == expected


def test_checkpoints_of_a_topic_are_bounded() -> None:
    checkpoints = Checkpoints(ResumeRange(0))
    for serial in range(1, MAX_CHECKPOINTS + 10):
        checkpoints.add(Checkpoint(serial, serial))
    oldest = 10
    assert len(checkpoints._checkpoints) == MAX_CHECKPOINTS
    assert checkpoints.find(oldest - 1) is None
    found = checkpoints.find(oldest)
    assert found is not None
    assert found.seq == oldest


def test_checkpoints_of_all_topics_together_are_bounded() -> None:
    resume_range = ResumeRange(0)
    topics = [Checkpoints(resume_range) for _ in range(200)]
    for serial in range(1, 50 * len(topics)):
        topics[serial % len(topics)].add(Checkpoint(serial, serial))
    stored = [each._checkpoints for each in topics]
    assert sum(map(len, stored)) <= MAX_CHECKPOINTS_TOTAL + 2 * len(topics)
    for checkpoints, kept in zip(topics, stored, strict=True):
        assert len(kept) >= 2
        assert checkpoints.find(kept[-1].serial) == checkpoints.last
        assert checkpoints.find(kept[0].serial - 1) is None, "dropped checkpoints are not guessed"
    for checkpoints in topics:
        checkpoints.clear()
    for serial in (1, 2, 3):
        topics[0].add(Checkpoint(serial, serial))
    assert topics[0].find(0) == Checkpoint(1, 1), "dropped topics make room"


def test_checkpoint_follows_the_batches_of_its_interval() -> None:
    batches = BatchIndex(max_batches=2)
    checkpoint = Checkpoint(0, 3, shared_index=batches)
    batches.append(5, 8)
    assert (checkpoint.seq_at(4), checkpoint.seq_at(5)) == (3, 8)


def test_reply_is_unconfirmed_until_a_later_write() -> None:
    checkpoints = Checkpoints(ResumeRange(0))
    checkpoints.add(Checkpoint(1, 1))
    checkpoints.restart(ReplyPosition(4, had_position=True))
    checkpoints.add(Checkpoint(4, 9))
    assert checkpoints.unconfirmed_reply(4) == ReplyPosition(4, had_position=True)
    assert checkpoints.unconfirmed_reply(5) is None
    assert Checkpoints(ResumeRange(0)).unconfirmed_reply(1) is None
    found = checkpoints.find(1)
    assert found is not None
    assert found.seq == 9, "the restart forgets earlier checkpoints"
    checkpoints.clear()
    assert checkpoints.unconfirmed_reply(4) is None
