"""The trail of a client against a plain list of what it was really sent."""

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
    st.tuples(st.sampled_from(["others", "follow", "fall", "replay", "jump"]), st.integers(1, 4)),
    max_size=40,
)


@given(steps)
def test_at_any_write_the_trail_knows_what_the_client_had(moves: list[tuple[str, int]]) -> None:
    trail: Checkpoints[str] = Checkpoints(0)
    written = WriteIndex(0, max_messages=1000)
    trail.add("t", Checkpoint(0, 0, shared_index=written))
    serial = head = mine = 0
    follows = True
    truth = [0]
    for move, count in moves:
        if move == "fall" and follows:
            follows = False
            trail.add("t", Checkpoint(serial + 1, mine))
        elif move in ("replay", "jump") and not follows:
            behind = head - mine
            stride = min(count, behind) if move == "replay" else 1
            if not behind:
                continue
            if move == "replay":
                trail.add("t", Checkpoint(serial + 1, mine, steps=stride))
            else:
                trail.add("t", Checkpoint(serial + 1, head))
            for _ in range(stride):
                serial += 1
                mine = mine + 1 if move == "replay" else head
                truth.append(mine)
            if mine == head:
                follows = True
                trail.add("t", Checkpoint(serial, head, shared_index=written))
        else:
            for _ in range(count):
                serial += 1
                if move != "others":
                    head += 1
                    written.append(serial, 0)
                    mine = head if follows else mine
                truth.append(mine)
    for number, expected in enumerate(truth):
        mark = trail.find("t", number)
        if mark is None:
            assert "t" in trail._truncated
        else:
            assert mark.seq_at(number) == expected


def test_marks_are_bounded_and_what_is_older_is_not_guessed() -> None:
    trail: Checkpoints[str] = Checkpoints(0)
    for serial in range(1, MAX_CHECKPOINTS + 10):
        trail.add("t", Checkpoint(serial, serial))
    oldest = 10
    assert len(trail._checkpoints["t"]) == MAX_CHECKPOINTS
    assert trail.find("t", oldest - 1) is None
    found = trail.find("t", oldest)
    assert found is not None
    assert found.seq == oldest


def test_all_topics_together_are_bounded_and_the_newest_marks_are_kept() -> None:
    trail: Checkpoints[int] = Checkpoints(0)
    topics = 200
    for serial in range(1, 50 * topics):
        trail.add(serial % topics, Checkpoint(serial, serial))
    marks = list(trail._checkpoints.values())
    assert sum(map(len, marks)) <= MAX_CHECKPOINTS_TOTAL + 2 * topics
    for key, mine in trail._checkpoints.items():
        assert len(mine) >= 2
        assert trail.find(key, mine[-1].serial) == trail.last(key)
        assert trail.find(key, mine[0].serial - 1) is None, "and nothing is guessed"
    for key in range(topics):
        trail.drop(key)
    trail.add(0, Checkpoint(1, 1))
    trail.add(0, Checkpoint(2, 2))
    trail.add(0, Checkpoint(3, 3))
    assert trail.find(0, 0) == Checkpoint(1, 1), "there is room again"


def test_a_client_that_follows_a_pace_is_as_far_as_its_rounds() -> None:
    rounds = BatchIndex(max_batches=2)
    mark = Checkpoint(0, 3, shared_index=rounds)
    rounds.append(5, 8)
    assert (mark.seq_at(4), mark.seq_at(5)) == (3, 8)


def test_before_an_answer_nobody_can_know_whether_it_arrived() -> None:
    trail: Checkpoints[str] = Checkpoints(0)
    trail.add("t", Checkpoint(1, 1))
    trail.restart("t", ReplyPosition(4, had_position=True))
    trail.add("t", Checkpoint(4, 9))
    assert trail.unconfirmed_reply("t", 4) == ReplyPosition(4, had_position=True)
    assert trail.unconfirmed_reply("t", 5) is None
    assert trail.unconfirmed_reply("other", 1) is None
    found = trail.find("t", 1)
    assert found is not None
    assert found.seq == 9, "its way there does not count any more"
    trail.drop("t")
    assert trail.unconfirmed_reply("t", 4) is None
