"""How far one client had come in each of its topics, at any write that it may have seen last."""

from collections.abc import Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

# A client that falls behind and catches up leaves a few marks each time. Older ones than these
# matter only to a client that has seen nothing of all that came since.
MAX_CHECKPOINTS = 64
# And so many in all its topics. A client that falls behind in 200 of them again and again, so as
# to fill our memory, keeps but the last two in each.
MAX_CHECKPOINTS_TOTAL = 1024
_MIN_CHECKPOINTS = 2


class SerialIndex(Protocol):
    """What was written to all who hear a topic at one pace."""

    def seq_at(self, serial: int, min_seq: int) -> int | None:
        """How far this write had brought them; None where that is forgotten."""


class Checkpoint(NamedTuple):
    """What is true of one topic from a certain write on, until the next mark."""

    serial: int
    # So far the client had come there, and by one message more with each of so many writes.
    seq: int
    steps: int = 0
    # Or as far as everybody of its pace.
    shared_index: SerialIndex | None = None
    # What was told apart from messages, up to this write; None where that was told as it came.
    pushed_serial: int | None = None
    # And what it had yet to be told wherever it stood.
    needs_snapshot: bool = False
    needs_status: bool = False

    def seq_at(self, serial: int) -> int | None:
        """How far the client had come when this was written; None where that is forgotten."""
        if self.shared_index is not None:
            return self.shared_index.seq_at(serial, self.seq)
        return self.seq + max(0, min(serial - self.serial + 1, self.steps))


class ReplyPosition(NamedTuple):
    """A place that the client was told in an answer, which has no number and may be lost."""

    serial: int
    # Whether it had another place there before.
    had_position: bool


class Checkpoints(Generic[K]):
    """The marks of one client."""

    __slots__ = (
        "_checkpoints",
        "_count",
        "_pending_replies",
        "_replies",
        "_truncated",
        "base_serial",
        "foreign_offset",
    )

    def __init__(self, base_serial: int, foreign_offset: str | None = None) -> None:
        # The last write before its first; and the offset of another node that stands for it, where
        # the client was there before.
        self.base_serial = base_serial
        self.foreign_offset = foreign_offset
        self._checkpoints: dict[K, tuple[Checkpoint, ...]] = {}
        self._count = 0
        # The topics whose oldest marks are forgotten.
        self._truncated: set[K] = set()
        self._replies: dict[K, ReplyPosition] = {}
        self._pending_replies: list[K] = []

    def restart(self, key: K, reply: ReplyPosition) -> None:
        """The client is told anew where it stands."""
        self._remove(key)
        self._replies[key] = reply
        self._pending_replies.append(key)

    def reply_sent(self, serial: int) -> None:
        """The answer goes out now, behind all that was written while it was being made."""
        for key in self._pending_replies:
            if key in self._replies:
                self._replies[key] = self._replies[key]._replace(serial=serial)
        self._pending_replies.clear()

    def unconfirmed_reply(self, key: K, serial: int) -> ReplyPosition | None:
        """The answer of which a client may not know that has seen no more than this."""
        answer = self._replies.get(key)
        return answer if answer is not None and serial <= answer.serial else None

    def add(self, key: K, checkpoint: Checkpoint) -> None:
        """Something else is true from now on."""
        marks = self._checkpoints.get(key, ())
        if marks and marks[-1].serial == checkpoint.serial:
            # Nothing was written meanwhile.
            marks = marks[:-1]
            self._count -= 1
        full = len(marks) >= _MIN_CHECKPOINTS and self._count >= MAX_CHECKPOINTS_TOTAL
        if full or len(marks) >= MAX_CHECKPOINTS:
            marks = marks[1:]
            self._count -= 1
            self._truncated.add(key)
        self._checkpoints[key] = (*marks, checkpoint)
        self._count += 1

    def drop(self, key: K) -> None:
        """The client wants no more of a topic."""
        self._remove(key)
        self._replies.pop(key, None)

    def last(self, key: K) -> Checkpoint:
        """What is true now."""
        return self._checkpoints[key][-1]

    def find(self, key: K, serial: int) -> Checkpoint | None:
        """What was true when this was written; None where that is forgotten.

        Before the first mark the client had no more than that says.
        """
        marks = self._checkpoints[key]
        for mark in reversed(marks):
            if mark.serial <= serial:
                return mark
        return None if key in self._truncated else marks[0]

    def _remove(self, key: K) -> None:
        self._count -= len(self._checkpoints.pop(key, ()))
        self._truncated.discard(key)
