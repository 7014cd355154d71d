"""The entries of a log, and their positions.

An entry is a tuple: a frozen dataclass takes twice as long to create.
"""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a log; a new epoch means that the earlier history was lost."""

    epoch: str
    seq: int

    def body(self) -> dict[str, object]:
        """The position as clients see it."""
        return {"epoch": self.epoch, "seq": self.seq}


class Receipt(NamedTuple):
    """The position and time of an accepted message: the same for every retry of it."""

    position: Position
    ts_ms: int


class Entry(NamedTuple):
    """One accepted message, its data as JSON bytes.

    A snapshot's data is the whole state; an update's may be only a change of it.
    """

    channel: str
    position: Position
    ts_ms: int
    data: bytes
    kind: str = "update"
    # The seq of the entry before it, if its log is derived from another one: it has the positions
    # of that log, and skips some.
    after: int | None = None

    @property
    def prev(self) -> int:
        """The seq of the entry before it."""
        return self.position.seq - 1 if self.after is None else self.after


class Reset(NamedTuple):
    """The restart of a channel at `head`, because the entries up to there are unknown.

    The newest entry's data is the whole state; without one the channel starts empty.
    """

    channel: str
    head: Position
    latest: Entry | None
