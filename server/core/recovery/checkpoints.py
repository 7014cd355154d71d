"""Records how far one client had come in a topic, for any write that it may have seen last."""

from typing import NamedTuple, Protocol

from server.core.recovery.offsets import Offsets

# A client that falls behind and catches up leaves a few checkpoints each time. Those before these
# matter only to a client that has seen none of the writes since.
MAX_CHECKPOINTS = 64
# The bound over all topics of a client. A client that falls behind in 200 topics again and again,
# to fill the server's memory, keeps only the last two in each.
MAX_CHECKPOINTS_TOTAL = 1024
_MIN_CHECKPOINTS = 2


class SerialIndex(Protocol):
    """Maps the serial of a write to the position it brought all up-to-date clients to."""

    def seq_at(self, serial: int, min_seq: int) -> int | None:
        """The seq at this write, at least `min_seq`; None if that write is no longer indexed."""


class Pending(NamedTuple):
    """What else a client had yet to be sent."""

    # Pushes after this serial; None if they were sent as they came.
    pushed_serial: int | None = None
    needs_snapshot: bool = False
    needs_status: bool = False


class Checkpoint(NamedTuple):
    """The state of a client in one topic, from a write on until the next checkpoint."""

    serial: int
    # The client's seq before this write; it grows by one with each of the next `steps` writes.
    seq: int
    steps: int = 0
    # Or its seq is that of every up-to-date client of its interval.
    shared_index: SerialIndex | None = None
    # None if there was nothing else.
    pending: Pending | None = None

    def seq_at(self, serial: int) -> int | None:
        """The client's seq at this write; None if that is unknown."""
        if self.shared_index is not None:
            return self.shared_index.seq_at(serial, self.seq)
        return self.seq + max(0, min(serial - self.serial + 1, self.steps))


class ReplyPosition(NamedTuple):
    """A position sent in a reply, which carries no offset and may be lost."""

    serial: int
    # If the client had another position in this topic before.
    had_position: bool


class ResumeRange:
    """The writes that one client may have seen last, and the number of its checkpoints."""

    __slots__ = ("_base_serial", "_checkpoint_count", "_foreign_offset", "last_serial")

    def __init__(self, base_serial: int, foreign_offset: str | None = None) -> None:
        # The last write before the client's first; and the offset of another node that stands for
        # it, if the client was connected there before.
        self._base_serial = base_serial
        self._foreign_offset = foreign_offset
        # The last write before the client was parked.
        self.last_serial = base_serial
        self._checkpoint_count = 0

    @property
    def is_full(self) -> bool:
        """Whether the client has as many checkpoints as it may, over all its topics."""
        return self._checkpoint_count >= MAX_CHECKPOINTS_TOTAL

    def count_checkpoints(self, change: int) -> None:
        """Count checkpoints that were added, or dropped if negative."""
        self._checkpoint_count += change

    def end(self, serial: int) -> None:
        """Record the last write before the client was parked."""
        self.last_serial = serial

    def find(self, offset: str | None, offsets: Offsets) -> int | None:
        """The write that a parked client saw last; None if it cannot have seen this offset.

        No offset means that the client saw nothing of this connection. So does the offset of its
        connection to another node: Socket.IO clients repeat it until they receive a newer one.
        """
        is_start = offset is None or offset == self._foreign_offset
        serial = self._base_serial if is_start else offsets.parse(offset)
        if serial is None or serial > self.last_serial:
            return None
        return max(serial, self._base_serial)


class Checkpoints:
    """The checkpoints of one client in one topic."""

    __slots__ = ("_checkpoints", "_had_position", "_is_truncated", "_range", "_reply_serial")

    def __init__(self, resume_range: ResumeRange) -> None:
        self._range = resume_range
        self._checkpoints: tuple[Checkpoint, ...] = ()
        # Whether the oldest checkpoints were dropped.
        self._is_truncated = False
        # The fields of the last `ReplyPosition`; there are many checkpoints, so no object.
        self._reply_serial: int | None = None
        self._had_position = False

    def restart(self, reply: ReplyPosition) -> None:
        """Forget the checkpoints: a reply will give the client a new position."""
        self.clear()
        self._reply_serial, self._had_position = reply

    def reply_sent(self, serial: int) -> None:
        """Record that the reply goes out now, after this write."""
        if self._reply_serial is not None:
            self._reply_serial = serial

    def unconfirmed_reply(self, serial: int) -> ReplyPosition | None:
        """The reply that a client may have missed if it saw nothing after this write; else None."""
        if self._reply_serial is None or serial > self._reply_serial:
            return None
        return ReplyPosition(self._reply_serial, self._had_position)

    def add(self, checkpoint: Checkpoint) -> None:
        """Add the next checkpoint; replaces one for the same write."""
        kept = self._checkpoints
        if kept and kept[-1].serial == checkpoint.serial:
            # Nothing was written in between.
            kept = kept[:-1]
            self._range.count_checkpoints(-1)
        is_full = len(kept) >= _MIN_CHECKPOINTS and self._range.is_full
        if is_full or len(kept) >= MAX_CHECKPOINTS:
            kept = kept[1:]
            self._range.count_checkpoints(-1)
            self._is_truncated = True
        self._checkpoints = (*kept, checkpoint)
        self._range.count_checkpoints(1)

    def clear(self) -> None:
        """Forget all checkpoints and the reply, and give their room to other topics."""
        self._range.count_checkpoints(-len(self._checkpoints))
        self._checkpoints = ()
        self._is_truncated = self._had_position = False
        self._reply_serial = None

    @property
    def last(self) -> Checkpoint:
        """The newest checkpoint; there must be one."""
        return self._checkpoints[-1]

    def find(self, serial: int) -> Checkpoint | None:
        """The checkpoint in force at this write; None if it was dropped.

        The first checkpoint also covers the writes before it.
        """
        for checkpoint in reversed(self._checkpoints):
            if checkpoint.serial <= serial:
                return checkpoint
        return None if self._is_truncated else self._checkpoints[0]
