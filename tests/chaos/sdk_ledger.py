"""What the client SDK promises its user, held against what was really published."""

import sys

from client_sdk import Gap, GapReason, Position

PositionKey = tuple[str, int]


class MessageLog:
    """One topic or session: what stands at each place, as all who know of it agree."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.labels: dict[PositionKey, str] = {}
        self.acknowledged = 0

    def acknowledge(self, position: Position, label: str) -> None:
        """Somebody was told that this was kept."""
        self.acknowledged += 1
        self.record((position.epoch, position.seq), label)

    def record(self, position: PositionKey, label: str) -> None:
        """Somebody found this at a place."""
        found = self.labels.setdefault(position, label)
        assert found == label, (self.name, position, found, label)

    def check_unique(self) -> None:
        """Nothing was kept twice; a retry after a restart that forgot its id is another epoch."""
        of_epochs = [(epoch, label) for (epoch, _), label in self.labels.items()]
        assert len(set(of_epochs)) == len(of_epochs), self.name


class ReaderLog:
    """One reader of a log: each message exactly once and in order, or a gap that says so."""

    def __init__(self, log: MessageLog, start: Position) -> None:
        self.log = log
        self.gaps: list[Gap] = []
        self.position: PositionKey = (start.epoch, start.seq)
        self._read: set[PositionKey] = set()
        # What it is not owed, or was told to be missing, by epoch.
        self._reported: dict[str, list[range]] = {start.epoch: [range(start.seq + 1)]}
        # After its gap the next epoch is read from its beginning.
        self._awaits_epoch = False
        # The last number of each sender in this epoch.
        self._last_numbers: dict[str, int] = {}

    @property
    def count(self) -> int:
        """How many messages were read."""
        return len(self._read)

    def record_message(self, position: PositionKey, label: str) -> None:
        """A message was read."""
        epoch, seq = position
        if self._awaits_epoch:
            assert epoch not in self._reported, (self.log.name, position, "an epoch that was left")
            assert seq == 1, (self.log.name, position, "the new epoch begins before that")
            self._reported[epoch] = []
            self._last_numbers.clear()
            self._awaits_epoch = False
        else:
            expected = (self.position[0], self.position[1] + 1)
            assert position == expected, (self.log.name, position, expected)
        sender, _, number = label.rpartition("/")
        assert int(number) > self._last_numbers.get(sender, 0), (self.log.name, position, label)
        self._last_numbers[sender] = int(number)
        self.log.record(position, label)
        self.position = position
        self._read.add(position)

    def record_gap(self, gap: Gap) -> None:
        """It was told that something is missing."""
        expected = (self.position[0], self.position[1] + 1)
        assert not self._awaits_epoch, (self.log.name, gap)
        assert (gap.epoch, gap.missed_from) == expected, (self.log.name, gap, expected)
        self.gaps.append(gap)
        if gap.missed_to is None:
            assert gap.reason is GapReason.EPOCH
            self._awaits_epoch = True
        else:
            self.position = (gap.epoch, gap.missed_to)
        ends = sys.maxsize if gap.missed_to is None else gap.missed_to + 1
        self._reported[gap.epoch].append(range(gap.missed_from, ends))

    def check(self) -> None:
        """Whatever was published and not read lies in a gap that was told."""
        silent = [
            place
            for place in self.log.labels
            if place not in self._read and not self._is_reported(place)
        ]
        assert not silent, (self.log.name, silent, self.gaps)

    def _is_reported(self, position: PositionKey) -> bool:
        epoch, seq = position
        if epoch not in self._reported:
            # It came and went while this one was away, between two epochs that it knows.
            return any(gap.missed_to is None for gap in self.gaps)
        return any(seq in told for told in self._reported[epoch])
