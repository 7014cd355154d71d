"""Checkpoints of a client, against a plain list of what it was sent."""

from hypothesis import given
from hypothesis import strategies as st

from server.core.recovery.checkpoints import (
    MAX_CHECKPOINTS,
    MAX_CHECKPOINTS_TOTAL,
    Checkpoint,
    Checkpoints,
    ReplyPosition,
)
from server.core.recovery.write_index import BatchIndex, WriteIndex

steps = st.lists(
    st.tuples(st.sampled_from(["others", "write", "lag", "replay", "jump"]), st.integers(1, 4)),
    max_size=40,
)


@given(steps)
def test_checkpoints_know_the_seq_at_any_write(moves: list[tuple[str, int]]) -> None:
    checkpoints: Checkpoints[str] = Checkpoints(0)
    index = WriteIndex(0, max_messages=1000)
    checkpoints.add("t", Checkpoint(0, 0, shared_index=index))
    serial = head = seq = 0
    up_to_date = True
    sent = [0]
    for move, count in moves:
        if move == "lag" and up_to_date:
            up_to_date = False
            checkpoints.add("t", Checkpoint(serial + 1, seq))
        elif move in ("replay", "jump") and not up_to_date:
            behind = head - seq
            step_count = min(count, behind) if move == "replay" else 1
            if not behind:
                continue
            if move == "replay":
                checkpoints.add("t", Checkpoint(serial + 1, seq, steps=step_count))
            else:
                checkpoints.add("t", Checkpoint(serial + 1, head))
            for _ in range(step_count):
                serial += 1
                seq = seq + 1 if move == "replay" else head
                sent.append(seq)
            if seq == head:
                up_to_date = True
                checkpoints.add("t", Checkpoint(serial, head, shared_index=index))
        else:
            for _ in range(count):
                serial += 1
                if move != "others":
                    head += 1
                    index.append(serial, 0)
                    seq = head if up_to_date else seq
                sent.append(seq)
    for number, expected in enumerate(sent):
        checkpoint = checkpoints.find("t", number)
        if checkpoint is None:
            assert "t" in checkpoints._truncated
        else:
            assert checkpoint.seq_at(number) == expected


def test_checkpoints_of_a_topic_are_bounded() -> None:
    checkpoints: Checkpoints[str] = Checkpoints(0)
    for serial in range(1, MAX_CHECKPOINTS + 10):
        checkpoints.add("t", Checkpoint(serial, serial))
    oldest = 10
    assert len(checkpoints._checkpoints["t"]) == MAX_CHECKPOINTS
    assert checkpoints.find("t", oldest - 1) is None
    found = checkpoints.find("t", oldest)
    assert found is not None
    assert found.seq == oldest


def test_checkpoints_of_all_topics_together_are_bounded() -> None:
    checkpoints: Checkpoints[int] = Checkpoints(0)
    topics = 200
    for serial in range(1, 50 * topics):
        checkpoints.add(serial % topics, Checkpoint(serial, serial))
    stored = list(checkpoints._checkpoints.values())
    assert sum(map(len, stored)) <= MAX_CHECKPOINTS_TOTAL + 2 * topics
    for key, kept in checkpoints._checkpoints.items():
        assert len(kept) >= 2
        assert checkpoints.find(key, kept[-1].serial) == checkpoints.last(key)
        assert checkpoints.find(key, kept[0].serial - 1) is None, (
            "dropped checkpoints are not guessed"
        )
    for key in range(topics):
        checkpoints.drop(key)
    checkpoints.add(0, Checkpoint(1, 1))
    checkpoints.add(0, Checkpoint(2, 2))
    checkpoints.add(0, Checkpoint(3, 3))
    assert checkpoints.find(0, 0) == Checkpoint(1, 1), "dropped topics make room"


def test_checkpoint_follows_the_batches_of_its_interval() -> None:
    batches = BatchIndex(max_batches=2)
    checkpoint = Checkpoint(0, 3, shared_index=batches)
    batches.append(5, 8)
    assert (checkpoint.seq_at(4), checkpoint.seq_at(5)) == (3, 8)


def test_reply_is_unconfirmed_until_a_later_write() -> None:
    checkpoints: Checkpoints[str] = Checkpoints(0)
    checkpoints.add("t", Checkpoint(1, 1))
    checkpoints.restart("t", ReplyPosition(4, had_position=True))
    checkpoints.add("t", Checkpoint(4, 9))
    assert checkpoints.unconfirmed_reply("t", 4) == ReplyPosition(4, had_position=True)
    assert checkpoints.unconfirmed_reply("t", 5) is None
    assert checkpoints.unconfirmed_reply("other", 1) is None
    found = checkpoints.find("t", 1)
    assert found is not None
    assert found.seq == 9, "the restart forgets earlier checkpoints"
    checkpoints.drop("t")
    assert checkpoints.unconfirmed_reply("t", 4) is None
