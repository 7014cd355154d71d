"""Following channels over a pub/sub that drops, doubles and makes up: the log sets it right."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.brokers.redis.log.gap_detector import Reading, Watches
from server.core.log.entries import Entry, Position, Reset


class Ear:
    """What the watches tell, and the truth beside it."""

    def __init__(self) -> None:
        self.told: list[Entry | Reset] = []
        self.counted: Counter[str] = Counter()
        self.watches = Watches(self.told.append, self.told.append, self._count)

    def _count(self, name: str) -> None:
        self.counted[name] += 1

    def begun(self, seq: int = 0) -> "Ear":
        """One that follows A from here on."""
        self.watches.add("A")
        assert not self.watches.read("A", None, Reading(Position("e1", seq)))
        return self

    def places(self) -> list[tuple[str, int]]:
        """What was told, resets as negative numbers."""
        return [
            (each.head.epoch, -1 - each.head.seq)
            if isinstance(each, Reset)
            else (each.position.epoch, each.position.seq)
            for each in self.told
        ]


def entry(seq: int, epoch: str = "e1") -> Entry:
    return Entry("A", Position(epoch, seq), 1, b"{}")


def after(seq: int, head: int, epoch: str = "e1") -> Reading:
    missed = tuple(entry(each, epoch) for each in range(seq + 1, head + 1))
    return Reading(Position(epoch, head), entry(head, epoch), missed)


def test_what_comes_in_order_is_told_at_once_and_what_is_known_is_not() -> None:
    ear = Ear().begun(5)
    for seq in (4, 5, 6, 6, 7, 5):
        assert not ear.watches.hear(entry(seq))
    assert ear.places() == [("e1", 6), ("e1", 7)]


def test_nothing_is_told_before_it_is_known_where_it_begins() -> None:
    ear = Ear()
    ear.watches.add("A")
    for seq in (6, 7):
        assert not ear.watches.hear(entry(seq))
    assert not ear.watches.read("A", None, Reading(Position("e1", 6)))
    assert ear.places() == [("e1", 7)]


def test_a_hole_is_filled_from_the_log() -> None:
    ear = Ear().begun()
    assert ear.watches.hear(entry(3)), "the log is to be asked"
    assert list(ear.watches.behind) == ["A"]
    assert not ear.watches.hear(entry(4)), "it is asked already"
    assert not ear.watches.read("A", Position("e1", 0), after(0, 3))
    assert ear.places() == [("e1", seq) for seq in (1, 2, 3, 4)]
    assert not ear.watches.behind
    assert ear.counted == {"broker.holes": 1}


def test_a_hole_that_cannot_be_filled_is_told() -> None:
    ear = Ear().begun()
    ear.watches.hear(entry(9))
    ear.watches.read("A", Position("e1", 0), Reading(Position("e1", 9), entry(9)))
    ear.watches.hear(entry(10))
    assert ear.told[0] == Reset("A", Position("e1", 9), entry(9))
    assert ear.places()[1:] == [("e1", 10)]


def test_a_new_epoch_that_is_known_from_its_beginning_skips_nothing() -> None:
    ear = Ear().begun(4)
    assert ear.watches.hear(entry(1, "e2"))
    ear.watches.read("A", Position("e1", 4), after(0, 2, "e2"))
    assert ear.places() == [("e2", -1), ("e2", 1), ("e2", 2)]
    assert ear.told[0] == Reset("A", Position("e2", 0), None)


def test_what_a_stranger_makes_up_is_asked_for_once_and_never_told() -> None:
    ear = Ear().begun(4)
    assert ear.watches.hear(entry(1_000_000))
    assert not ear.watches.hear(entry(3, "e666"))
    again = ear.watches.read("A", Position("e1", 4), after(4, 4))
    assert again, "it might be newer than the answer"
    assert not ear.watches.read("A", Position("e1", 4), after(4, 4))
    ear.watches.hear(entry(5))
    assert ear.places() == [("e1", 5)]


def test_an_answer_to_an_older_question_is_let_go() -> None:
    ear = Ear().begun(4)
    ear.watches.doubt("A")
    assert not ear.watches.read("A", Position("e1", 3), after(3, 4))
    assert ear.told == []
    assert list(ear.watches.behind) == ["A"]
    ear.watches.drop("A")
    assert not ear.watches.read("A", Position("e1", 4), after(4, 5))
    assert not ear.watches.hear(entry(5))
    ear.watches.doubt("A")
    assert ear.told == []
    assert not ear.watches.behind


def test_what_comes_while_the_log_is_read_is_bounded() -> None:
    ear = Ear().begun()
    ear.watches.doubt("A")
    for seq in range(1, 5001):
        ear.watches.hear(entry(seq))
    watch = ear.watches.get("A")
    assert watch is not None
    assert watch.held is not None
    assert len(watch.held) == 1024
    assert ear.watches.read("A", Position("e1", 0), after(0, 1)), "the rest has to be read"
    assert not ear.watches.read("A", Position("e1", 1), after(1, 5000))
    assert ear.places() == [("e1", seq) for seq in range(1, 5001)]


async def test_whoever_waits_for_a_place_goes_on_when_it_was_told() -> None:
    ear = Ear().begun(4)
    assert ear.watches.reaches("A", Position("e1", 4)) is None
    assert ear.watches.reaches("B", Position("e1", 4)) is None
    reached = [ear.watches.reaches("A", Position("e1", seq)) for seq in (5, 6, 9)]
    ear.watches.hear(entry(5))
    assert [each is not None and each.done() for each in reached] == [True, False, False]
    ear.watches.hear(entry(7))
    ear.watches.read("A", Position("e1", 5), after(5, 7))
    assert [each is not None and each.done() for each in reached] == [True, True, False]
    ear.watches.drop("A")
    assert all(isinstance(each, asyncio.Future) and each.done() for each in reached)


@given(
    steps=st.lists(
        st.sampled_from(["publish", "hear", "lose", "double", "reopen", "read", "flush", "invent"]),
        max_size=80,
    )
)
def test_between_two_resets_everything_is_told_once_and_in_order(steps: list[str]) -> None:
    ear = Ear().begun()
    log: list[Entry] = []
    epoch, epochs = "e1", 1
    wire: list[Entry] = []

    def read() -> None:
        watch = ear.watches.get("A")
        assert watch is not None
        known = watch.position
        assert known is not None
        head = Position(epoch, len(log))
        if known.epoch == epoch:
            reading = Reading(head, None, tuple(log[known.seq :]))
        else:
            reading = Reading(head, None, tuple(log))
        ear.watches.read("A", known, reading)

    for step in [*steps, "reopen"]:
        if step == "publish":
            log.append(entry(len(log) + 1, epoch))
            wire.append(log[-1])
        elif step == "hear" and wire:
            ear.watches.hear(wire.pop(0))
        elif step == "lose" and wire:
            wire.pop(0)
        elif step == "double" and wire:
            wire.insert(0, wire[0])
        elif step == "reopen":
            wire.clear()
            ear.watches.doubt("A")
        elif step == "read":
            read()
        elif step == "flush":
            epochs += 1
            epoch = f"e{epochs}"
            log.clear()
        elif step == "invent":
            ear.watches.hear(entry(len(log) + 50, epoch))
    while ear.watches.behind:
        read()
    last = Position("e1", 0)
    for each in ear.told:
        if isinstance(each, Reset):
            last = each.head
        else:
            assert each.position == Position(last.epoch, last.seq + 1)
            last = each.position
    assert last == Position(epoch, len(log))
