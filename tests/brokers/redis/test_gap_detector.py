"""Gap detection with a pub/sub that loses, repeats and forges entries."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.brokers.redis.log.gap_detector import GapDetector, LogState
from server.core.log.entries import Entry, Position, Reset


class DetectorRig:
    """A gap detector with its deliveries and counters."""

    def __init__(self) -> None:
        self.deliveries: list[Entry | Reset] = []
        self.counted: Counter[str] = Counter()
        self.detector = GapDetector(self.deliveries.append, self.deliveries.append, self._count)

    def _count(self, name: str) -> None:
        self.counted[name] += 1

    def started(self, seq: int = 0) -> "DetectorRig":
        """Start watching A from this seq."""
        self.detector.add("A")
        assert not self.detector.apply_read("A", None, LogState(Position("e1", seq)))
        return self

    def positions(self) -> list[tuple[str, int]]:
        """The delivered positions, with resets as negative numbers."""
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


def test_next_entries_are_delivered_and_known_ones_ignored() -> None:
    rig = DetectorRig().started(5)
    for seq in (4, 5, 6, 6, 7, 5):
        assert not rig.detector.receive(entry(seq))
    assert rig.positions() == [("e1", 6), ("e1", 7)]


def test_nothing_is_delivered_before_the_first_read() -> None:
    rig = DetectorRig()
    rig.detector.add("A")
    for seq in (6, 7):
        assert not rig.detector.receive(entry(seq))
    assert not rig.detector.apply_read("A", None, LogState(Position("e1", 6)))
    assert rig.positions() == [("e1", 7)]


def test_gap_is_filled_from_the_log() -> None:
    rig = DetectorRig().started()
    assert rig.detector.receive(entry(3)), "the log must be read"
    assert list(rig.detector.behind) == ["A"]
    assert not rig.detector.receive(entry(4)), "a read is already pending"
    assert not rig.detector.apply_read("A", Position("e1", 0), after(0, 3))
    assert rig.positions() == [("e1", seq) for seq in (1, 2, 3, 4)]
    assert not rig.detector.behind
    assert rig.counted == {"broker.holes": 1}


def test_unfillable_gap_emits_a_reset() -> None:
    rig = DetectorRig().started()
    rig.detector.receive(entry(9))
    rig.detector.apply_read("A", Position("e1", 0), LogState(Position("e1", 9), entry(9)))
    rig.detector.receive(entry(10))
    assert rig.deliveries[0] == Reset("A", Position("e1", 9), entry(9))
    assert rig.positions()[1:] == [("e1", 10)]


def test_complete_new_epoch_is_delivered_after_a_reset() -> None:
    rig = DetectorRig().started(4)
    assert rig.detector.receive(entry(1, "e2"))
    rig.detector.apply_read("A", Position("e1", 4), after(0, 2, "e2"))
    assert rig.positions() == [("e2", -1), ("e2", 1), ("e2", 2)]
    assert rig.deliveries[0] == Reset("A", Position("e2", 0), None)


def test_forged_entry_causes_one_read_and_is_dropped() -> None:
    rig = DetectorRig().started(4)
    assert rig.detector.receive(entry(1_000_000))
    assert not rig.detector.receive(entry(3, "e666"))
    again = rig.detector.apply_read("A", Position("e1", 4), after(4, 4))
    assert again, "the entry may be newer than the read"
    assert not rig.detector.apply_read("A", Position("e1", 4), after(4, 4))
    rig.detector.receive(entry(5))
    assert rig.positions() == [("e1", 5)]


def test_outdated_read_is_ignored() -> None:
    rig = DetectorRig().started(4)
    rig.detector.suspect("A")
    assert not rig.detector.apply_read("A", Position("e1", 3), after(3, 4))
    assert rig.deliveries == []
    assert list(rig.detector.behind) == ["A"]
    rig.detector.drop("A")
    assert not rig.detector.apply_read("A", Position("e1", 4), after(4, 5))
    assert not rig.detector.receive(entry(5))
    rig.detector.suspect("A")
    assert rig.deliveries == []
    assert not rig.detector.behind


def test_buffer_during_a_read_is_bounded() -> None:
    rig = DetectorRig().started()
    rig.detector.suspect("A")
    for seq in range(1, 5001):
        rig.detector.receive(entry(seq))
    watched = rig.detector.get("A")
    assert watched is not None
    assert watched.buffered is not None
    assert len(watched.buffered) == 1024
    assert rig.detector.apply_read("A", Position("e1", 0), after(0, 1)), "the rest must be read"
    assert not rig.detector.apply_read("A", Position("e1", 1), after(1, 5000))
    assert rig.positions() == [("e1", seq) for seq in range(1, 5001)]


async def test_waiter_wakes_when_its_position_is_delivered() -> None:
    rig = DetectorRig().started(4)
    assert rig.detector.wait_until("A", Position("e1", 4)) is None
    assert rig.detector.wait_until("B", Position("e1", 4)) is None
    reached = [rig.detector.wait_until("A", Position("e1", seq)) for seq in (5, 6, 9)]
    rig.detector.receive(entry(5))
    assert [each is not None and each.done() for each in reached] == [True, False, False]
    rig.detector.receive(entry(7))
    rig.detector.apply_read("A", Position("e1", 5), after(5, 7))
    assert [each is not None and each.done() for each in reached] == [True, True, False]
    rig.detector.drop("A")
    assert all(isinstance(each, asyncio.Future) and each.done() for each in reached)


@given(
    steps=st.lists(
        st.sampled_from(
            ["publish", "receive", "lose", "double", "reopen", "read", "flush", "invent"]
        ),
        max_size=80,
    )
)
def test_entries_between_resets_are_delivered_once_in_order(steps: list[str]) -> None:
    rig = DetectorRig().started()
    log: list[Entry] = []
    epoch, epochs = "e1", 1
    wire: list[Entry] = []

    def read() -> None:
        watched = rig.detector.get("A")
        assert watched is not None
        known = watched.position
        assert known is not None
        head = Position(epoch, len(log))
        if known.epoch == epoch:
            state = LogState(head, None, tuple(log[known.seq :]))
        else:
            state = LogState(head, None, tuple(log))
        rig.detector.apply_read("A", known, state)

    for step in [*steps, "reopen"]:
        if step == "publish":
            log.append(entry(len(log) + 1, epoch))
            wire.append(log[-1])
        elif step == "receive" and wire:
            rig.detector.receive(wire.pop(0))
        elif step == "lose" and wire:
            wire.pop(0)
        elif step == "double" and wire:
            wire.insert(0, wire[0])
        elif step == "reopen":
            wire.clear()
            rig.detector.suspect("A")
        elif step == "read":
            read()
        elif step == "flush":
            epochs += 1
            epoch = f"e{epochs}"
            log.clear()
        elif step == "invent":
            rig.detector.receive(entry(len(log) + 50, epoch))
    while rig.detector.behind:
        read()
    last = Position("e1", 0)
    for each in rig.deliveries:
        if isinstance(each, Reset):
            last = each.head
        else:
            assert each.position == Position(last.epoch, last.seq + 1)
            last = each.position
    assert last == Position(epoch, len(log))
