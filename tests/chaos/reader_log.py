"""Check what one SDK reader receives against what was published."""

import sys

from client_sdk import Gap, GapReason, Position
from tests.kit.message_log import MessageLog, PositionKey


def position_key(position: Position) -> PositionKey:
    """A position of the SDK as the logs key it."""
    return position.epoch, position.seq


class ReaderLog:
    """What one reader received: each message exactly once and in order, or a reported gap."""

    def __init__(self, log: MessageLog, start: Position) -> None:
        self.log = log
        self.gaps: list[Gap] = []
        self.position = position_key(start)
        self._read: set[PositionKey] = set()
        # Positions before the start and in reported gaps, by epoch.
        self._reported: dict[str, list[range]] = {start.epoch: [range(start.seq + 1)]}
        # After an epoch gap the next epoch is read from its first message.
        self._awaits_epoch = False
        # The last number of each sender in the current epoch.
        self._last_numbers: dict[str, int] = {}

    @property
    def count(self) -> int:
        """The number of messages read."""
        return len(self._read)

    def record_message(self, position: PositionKey, label: str) -> None:
        """Record a message and check its position and its sender's order."""
        epoch, seq = position
        if self._awaits_epoch:
            assert epoch not in self._reported, (self.log.name, position, "an earlier epoch")
            assert seq == 1, (self.log.name, position, "the new epoch does not start at 1")
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
        """Record a gap and check that it starts at the next position."""
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
        """Check that every message is either read or inside a reported gap."""
        missing = [
            position
            for position in self.log.messages
            if position not in self._read and not self._is_reported(position)
        ]
        assert not missing, (self.log.name, missing, self.gaps)

    def _is_reported(self, position: PositionKey) -> bool:
        epoch, seq = position
        if epoch not in self._reported:
            # The epoch started and ended while this reader was disconnected.
            return any(gap.missed_to is None for gap in self.gaps)
        return any(seq in missing for missing in self._reported[epoch])
