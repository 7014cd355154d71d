"""What the client SDK promises its user, held against what was really published."""

import sys

from client_sdk import Gap, GapReason, Position

Place = tuple[str, int]


class Log:
    """One topic or session: what stands at each place, as all who know of it agree."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.labels: dict[Place, str] = {}
        self.acknowledged = 0

    def acknowledge(self, position: Position, label: str) -> None:
        """Somebody was told that this was kept."""
        self.acknowledged += 1
        self.note((position.epoch, position.seq), label)

    def note(self, place: Place, label: str) -> None:
        """Somebody found this at a place."""
        found = self.labels.setdefault(place, label)
        assert found == label, (self.name, place, found, label)

    def check(self) -> None:
        """Nothing was kept twice; a retry after a restart that forgot its id is another epoch."""
        of_epochs = [(epoch, label) for (epoch, _), label in self.labels.items()]
        assert len(set(of_epochs)) == len(of_epochs), self.name


class Diary:
    """One reader of a log: each message exactly once and in order, or a gap that says so."""

    def __init__(self, log: Log, begins: Position) -> None:
        self.log = log
        self.gaps: list[Gap] = []
        self.place: Place = (begins.epoch, begins.seq)
        self._read: set[Place] = set()
        # What it is not owed, or was told to be missing, by epoch.
        self._told: dict[str, list[range]] = {begins.epoch: [range(begins.seq + 1)]}
        # After its gap the next epoch is read from its beginning.
        self._is_between = False
        # The last number of each sender in this epoch.
        self._senders: dict[str, int] = {}

    @property
    def count(self) -> int:
        """How many messages were read."""
        return len(self._read)

    def take(self, place: Place, label: str) -> None:
        """A message was read."""
        epoch, seq = place
        if self._is_between:
            assert epoch not in self._told, (self.log.name, place, "an epoch that was left")
            assert seq == 1, (self.log.name, place, "the new epoch begins before that")
            self._told[epoch] = []
            self._senders.clear()
            self._is_between = False
        else:
            expected = (self.place[0], self.place[1] + 1)
            assert place == expected, (self.log.name, place, expected)
        sender, _, number = label.rpartition("/")
        assert int(number) > self._senders.get(sender, 0), (self.log.name, place, label)
        self._senders[sender] = int(number)
        self.log.note(place, label)
        self.place = place
        self._read.add(place)

    def take_gap(self, gap: Gap) -> None:
        """It was told that something is missing."""
        expected = (self.place[0], self.place[1] + 1)
        assert not self._is_between, (self.log.name, gap)
        assert (gap.epoch, gap.missed_from) == expected, (self.log.name, gap, expected)
        self.gaps.append(gap)
        if gap.missed_to is None:
            assert gap.reason is GapReason.EPOCH
            self._is_between = True
        else:
            self.place = (gap.epoch, gap.missed_to)
        ends = sys.maxsize if gap.missed_to is None else gap.missed_to + 1
        self._told[gap.epoch].append(range(gap.missed_from, ends))

    def check(self) -> None:
        """Whatever was published and not read lies in a gap that was told."""
        silent = [
            place for place in self.log.labels if place not in self._read and not self._knows(place)
        ]
        assert not silent, (self.log.name, silent, self.gaps)

    def _knows(self, place: Place) -> bool:
        epoch, seq = place
        if epoch not in self._told:
            # It came and went while this one was away, between two epochs that it knows.
            return any(gap.missed_to is None for gap in self.gaps)
        return any(seq in told for told in self._told[epoch])
