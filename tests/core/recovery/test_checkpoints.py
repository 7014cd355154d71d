"""The trail of a client against a plain list of what it was really sent."""

from hypothesis import given
from hypothesis import strategies as st

from server.core.recovery.checkpoints import MAX_MARKS, MAX_MARKS_IN_ALL, Answer, Mark, Trail
from server.core.recovery.write_index import Rounds, Written

steps = st.lists(
    st.tuples(st.sampled_from(["others", "follow", "fall", "replay", "jump"]), st.integers(1, 4)),
    max_size=40,
)


@given(steps)
def test_at_any_write_the_trail_knows_what_the_client_had(moves: list[tuple[str, int]]) -> None:
    trail: Trail[str] = Trail(0)
    written = Written(0, max_messages=1000)
    trail.note("t", Mark(0, 0, follows=written))
    serial = head = mine = 0
    follows = True
    truth = [0]
    for move, count in moves:
        if move == "fall" and follows:
            follows = False
            trail.note("t", Mark(serial + 1, mine))
        elif move in ("replay", "jump") and not follows:
            behind = head - mine
            stride = min(count, behind) if move == "replay" else 1
            if not behind:
                continue
            if move == "replay":
                trail.note("t", Mark(serial + 1, mine, steps=stride))
            else:
                trail.note("t", Mark(serial + 1, head))
            for _ in range(stride):
                serial += 1
                mine = mine + 1 if move == "replay" else head
                truth.append(mine)
            if mine == head:
                follows = True
                trail.note("t", Mark(serial, head, follows=written))
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
            assert "t" in trail._cropped
        else:
            assert mark.seq_at(number) == expected


def test_marks_are_bounded_and_what_is_older_is_not_guessed() -> None:
    trail: Trail[str] = Trail(0)
    for serial in range(1, MAX_MARKS + 10):
        trail.note("t", Mark(serial, serial))
    oldest = 10
    assert len(trail._marks["t"]) == MAX_MARKS
    assert trail.find("t", oldest - 1) is None
    found = trail.find("t", oldest)
    assert found is not None
    assert found.seq == oldest


def test_all_topics_together_are_bounded_and_the_newest_marks_are_kept() -> None:
    trail: Trail[int] = Trail(0)
    topics = 200
    for serial in range(1, 50 * topics):
        trail.note(serial % topics, Mark(serial, serial))
    marks = list(trail._marks.values())
    assert sum(map(len, marks)) <= MAX_MARKS_IN_ALL + 2 * topics
    for key, mine in trail._marks.items():
        assert len(mine) >= 2
        assert trail.find(key, mine[-1].serial) == trail.last(key)
        assert trail.find(key, mine[0].serial - 1) is None, "and nothing is guessed"
    for key in range(topics):
        trail.drop(key)
    trail.note(0, Mark(1, 1))
    trail.note(0, Mark(2, 2))
    trail.note(0, Mark(3, 3))
    assert trail.find(0, 0) == Mark(1, 1), "there is room again"


def test_a_client_that_follows_a_pace_is_as_far_as_its_rounds() -> None:
    rounds = Rounds(max_rounds=2)
    mark = Mark(0, 3, follows=rounds)
    rounds.append(5, 8)
    assert (mark.seq_at(4), mark.seq_at(5)) == (3, 8)


def test_before_an_answer_nobody_can_know_whether_it_arrived() -> None:
    trail: Trail[str] = Trail(0)
    trail.note("t", Mark(1, 1))
    trail.begin("t", Answer(4, moved=True))
    trail.note("t", Mark(4, 9))
    assert trail.unsure("t", 4) == Answer(4, moved=True)
    assert trail.unsure("t", 5) is None
    assert trail.unsure("other", 1) is None
    found = trail.find("t", 1)
    assert found is not None
    assert found.seq == 9, "its way there does not count any more"
    trail.drop("t")
    assert trail.unsure("t", 4) is None
