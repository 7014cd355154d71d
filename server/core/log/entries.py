"""What a topic consists of: accepted messages, each with its position."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a topic's history; a new epoch says that history was lost."""

    epoch: str
    seq: int

    def body(self) -> dict[str, object]:
        """The position as clients see it."""
        return {"epoch": self.epoch, "seq": self.seq}


@dataclass(frozen=True, slots=True)
class Receipt:
    """An accepted message's place, and when it came: the same for every retry of it."""

    position: Position
    ts_ms: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted message: where it stands, when it came, and its data as JSON bytes.

    A snapshot's data is the whole state; an update's may be only a change of it.
    """

    channel: str
    position: Position
    ts_ms: int
    data: bytes
    kind: str = "update"


@dataclass(frozen=True, slots=True)
class Reset:
    """What came of a channel until here cannot be told: this is where it stands now.

    The newest entry's data is the whole state; without one the channel begins anew.
    """

    channel: str
    head: Position
    latest: Entry | None
