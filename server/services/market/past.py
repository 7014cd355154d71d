"""What a subscriber asks for of a topic's past, and the kept messages that answer it."""

from dataclasses import dataclass

from server.core.log.channel_state import ChannelState
from server.core.log.entries import Entry, Position


@dataclass(frozen=True, slots=True)
class SinceTime:
    """The messages that the server received at this time or later."""

    ts_ms: int


Since = Position | SinceTime


@dataclass(frozen=True, slots=True)
class Past:
    """All messages since a position or a time; if they are unknown, the `last` ones."""

    since: Since | None = None
    last: int = 0

    @property
    def position(self) -> Position | None:
        """The position that the client has seen; None if it names none."""
        return self.since if isinstance(self.since, Position) else None

    @property
    def needs_newest(self) -> bool:
        """Whether the newest kept messages must be read."""
        return self.last > 0 or isinstance(self.since, SinceTime)


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest kept entries as the broker had them."""

    entries: list[Entry]

    def up_to_date(self, state: ChannelState) -> list[Entry]:
        """The entries with those that this node received meanwhile; [] if that leaves a gap."""
        head = state.position
        known = [
            each
            for each in self.entries
            if each.position.epoch == head.epoch and each.position.seq <= head.seq
        ]
        if not known:
            return []
        rest = state.since(known[-1].position.seq)
        return [] if rest is None else known + rest


def entries_since_time(state: ChannelState, newest: Newest, ts_ms: int) -> list[Entry] | None:
    """The entries from a time on; None if older ones of them are no longer kept."""
    if state.position.seq == 0:
        return []
    entries = newest.up_to_date(state)
    if not entries:
        return None
    since = [each for each in entries if each.ts_ms >= ts_ms]
    is_complete = len(since) < len(entries) or entries[0].position.seq == 1
    return since if is_complete else None
