"""Following channels over a pub/sub that drops, doubles and makes up: the log sets it right."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.brokers.redis.log.gap_detector import GapDetector, LogState
from server.core.log.entries import Entry, Position, Reset


class DetectorRig:
    """What the watches tell, and the truth beside it."""

    def __init__(self) -> None:
        self.deliveries: list[Entry | Reset] = []
        self.counted: Counter[str] = Counter()
        self.detector = GapDetector(self.deliveries.append, self.deliveries.append, self._count)

    def _count(self, name: str) -> None:
        self.counted[name] += 1

    def started(self, seq: int = 0) -> "DetectorRig":
        """One that follows A from here on."""
        self.detector.add("A")
        assert not self.detector.apply_read("A", None, LogState(Position("e1", seq)))
        return self

    def positions(self) -> list[tuple[str, int]]:
        """What was told, resets as negative numbers."""
        return [
            (each.head.epoch, -1 - each.head.seq)
            if isinstance(each, Reset)
            else (each.position.epoch, each.position.seq)
            for each in self.deliveries
        ]


def entry(seq: int, epoch: str = "e1") -> Entry:
    return Entry("A", Position(epoch, seq), 1, b"{}")


def after(seq: int, head: int, epoch: str = "e1") -> LogState:
    missed = tuple(entry(each, epoch) for each in range(seq + 1, head + 1))
    return LogState(Position(epoch, head), entry(head, epoch), missed)


def test_what_comes_in_order_is_told_at_once_and_what_is_known_is_not() -> None:
    ear = DetectorRig().started(5)
    for seq in (4, 5, 6, 6, 7, 5):
        assert not ear.detector.receive(entry(seq))
    assert ear.positions() == [("e1", 6), ("e1", 7)]


def test_nothing_is_told_before_it_is_known_where_it_begins() -> None:
    ear = DetectorRig()
    ear.detector.add("A")
    for seq in (6, 7):
        assert not ear.detector.receive(entry(seq))
    assert not ear.detector.apply_read("A", None, LogState(Position("e1", 6)))
    assert ear.positions() == [("e1", 7)]


def test_a_hole_is_filled_from_the_log() -> None:
    ear = DetectorRig().started()
    assert ear.detector.receive(entry(3)), "the log is to be asked"
    assert list(ear.detector.behind) == ["A"]
    assert not ear.detector.receive(entry(4)), "it is asked already"
    assert not ear.detector.apply_read("A", Position("e1", 0), after(0, 3))
    assert ear.positions() == [("e1", seq) for seq in (1, 2, 3, 4)]
    assert not ear.detector.behind
    assert ear.counted == {"broker.holes": 1}


def test_a_hole_that_cannot_be_filled_is_told() -> None:
    ear = DetectorRig().started()
    ear.detector.receive(entry(9))
    ear.detector.apply_read("A", Position("e1", 0), LogState(Position("e1", 9), entry(9)))
    ear.detector.receive(entry(10))
    assert ear.deliveries[0] == Reset("A", Position("e1", 9), entry(9))
    assert ear.positions()[1:] == [("e1", 10)]


def test_a_new_epoch_that_is_known_from_its_beginning_skips_nothing() -> None:
    ear = DetectorRig().started(4)
    assert ear.detector.receive(entry(1, "e2"))
    ear.detector.apply_read("A", Position("e1", 4), after(0, 2, "e2"))
    assert ear.positions() == [("e2", -1), ("e2", 1), ("e2", 2)]
    assert ear.deliveries[0] == Reset("A", Position("e2", 0), None)


def test_what_a_stranger_makes_up_is_asked_for_once_and_never_told() -> None:
    ear = DetectorRig().started(4)
    assert ear.detector.receive(entry(1_000_000))
    assert not ear.detector.receive(entry(3, "e666"))
    again = ear.detector.apply_read("A", Position("e1", 4), after(4, 4))
    assert again, "it might be newer than the answer"
    assert not ear.detector.apply_read("A", Position("e1", 4), after(4, 4))
    ear.detector.receive(entry(5))
    assert ear.positions() == [("e1", 5)]


def test_an_answer_to_an_older_question_is_let_go() -> None:
    ear = DetectorRig().started(4)
    ear.detector.suspect("A")
    assert not ear.detector.apply_read("A", Position("e1", 3), after(3, 4))
    assert ear.deliveries == []
    assert list(ear.detector.behind) == ["A"]
    ear.detector.drop("A")
    assert not ear.detector.apply_read("A", Position("e1", 4), after(4, 5))
    assert not ear.detector.receive(entry(5))
    ear.detector.suspect("A")
    assert ear.deliveries == []
    assert not ear.detector.behind


def test_what_comes_while_the_log_is_read_is_bounded() -> None:
    ear = DetectorRig().started()
    ear.detector.suspect("A")
    for seq in range(1, 5001):
        ear.detector.receive(entry(seq))
    watch = ear.detector.get("A")
    assert watch is not None
    assert watch.buffered is not None
    assert len(watch.buffered) == 1024
    assert ear.detector.apply_read("A", Position("e1", 0), after(0, 1)), "the rest has to be read"
    assert not ear.detector.apply_read("A", Position("e1", 1), after(1, 5000))
    assert ear.positions() == [("e1", seq) for seq in range(1, 5001)]


async def test_whoever_waits_for_a_place_goes_on_when_it_was_told() -> None:
    ear = DetectorRig().started(4)
    assert ear.detector.wait_until("A", Position("e1", 4)) is None
    assert ear.detector.wait_until("B", Position("e1", 4)) is None
    reached = [ear.detector.wait_until("A", Position("e1", seq)) for seq in (5, 6, 9)]
    ear.detector.receive(entry(5))
    assert [each is not None and each.done() for each in reached] == [True, False, False]
    ear.detector.receive(entry(7))
    ear.detector.apply_read("A", Position("e1", 5), after(5, 7))
    assert [each is not None and each.done() for each in reached] == [True, True, False]
    ear.detector.drop("A")
    assert all(isinstance(each, asyncio.Future) and each.done() for each in reached)


@given(
    steps=st.lists(
        st.sampled_from(["publish", "hear", "lose", "double", "reopen", "read", "flush", "invent"]),
        max_size=80,
    )
)
def test_between_two_resets_everything_is_told_once_and_in_order(steps: list[str]) -> None:
    ear = DetectorRig().started()
    log: list[Entry] = []
    epoch, epochs = "e1", 1
    wire: list[Entry] = []

    def read() -> None:
        watch = ear.detector.get("A")
        assert watch is not None
        known = watch.position
        assert known is not None
        head = Position(epoch, len(log))
        if known.epoch == epoch:
            reading = LogState(head, None, tuple(log[known.seq :]))
        else:
            reading = LogState(head, None, tuple(log))
        ear.detector.apply_read("A", known, reading)

    for step in [*steps, "reopen"]:
        if step == "publish":
            log.append(entry(len(log) + 1, epoch))
            wire.append(log[-1])
        elif step == "hear" and wire:
            ear.detector.receive(wire.pop(0))
        elif step == "lose" and wire:
            wire.pop(0)
        elif step == "double" and wire:
            wire.insert(0, wire[0])
        elif step == "reopen":
            wire.clear()
            ear.detector.suspect("A")
        elif step == "read":
            read()
        elif step == "flush":
            epochs += 1
            epoch = f"e{epochs}"
            log.clear()
        elif step == "invent":
            ear.detector.receive(entry(len(log) + 50, epoch))
    while ear.detector.behind:
        read()
    last = Position("e1", 0)
    for each in ear.deliveries:
        if isinstance(each, Reset):
            last = each.head
        else:
            assert each.position == Position(last.epoch, last.seq + 1)
            last = each.position
    assert last == Position(epoch, len(log))
