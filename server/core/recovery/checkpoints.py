"""Records how far one client had come in each topic, for any write it may have seen last."""

from collections.abc import Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

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


class Checkpoint(NamedTuple):
    """The state of a client in one topic, from a write on until the next checkpoint."""

    serial: int
    # The client's seq before this write; it grows by one with each of the next `steps` writes.
    seq: int
    steps: int = 0
    # Or its seq is that of every up-to-date client of its interval.
    shared_index: SerialIndex | None = None
    # Pushes after this serial were pending; None if they were sent as they came.
    pushed_serial: int | None = None
    # What else was pending.
    needs_snapshot: bool = False
    needs_status: bool = False

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


class Checkpoints(Generic[K]):
    """The checkpoints of one client, by topic."""

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
        # The last write before the client's first; and the offset of another node that stands for
        # it, if the client was connected there before.
        self.base_serial = base_serial
        self.foreign_offset = foreign_offset
        self._checkpoints: dict[K, tuple[Checkpoint, ...]] = {}
        self._count = 0
        # The topics whose oldest checkpoints were dropped.
        self._truncated: set[K] = set()
        self._replies: dict[K, ReplyPosition] = {}
        self._pending_replies: list[K] = []

    def restart(self, key: K, reply: ReplyPosition) -> None:
        """Forget a topic's checkpoints: a reply will give the client a new position."""
        self._remove(key)
        self._replies[key] = reply
        self._pending_replies.append(key)

    def reply_sent(self, serial: int) -> None:
        """Record that the pending replies go out now, after this write."""
        for key in self._pending_replies:
            if key in self._replies:
                self._replies[key] = self._replies[key]._replace(serial=serial)
        self._pending_replies.clear()

    def unconfirmed_reply(self, key: K, serial: int) -> ReplyPosition | None:
        """The reply that a client may have missed if it saw nothing after this write; else None."""
        reply = self._replies.get(key)
        return reply if reply is not None and serial <= reply.serial else None

    def add(self, key: K, checkpoint: Checkpoint) -> None:
        """Add a topic's next checkpoint; replaces one for the same write."""
        checkpoints = self._checkpoints.get(key, ())
        if checkpoints and checkpoints[-1].serial == checkpoint.serial:
            # Nothing was written in between.
            checkpoints = checkpoints[:-1]
            self._count -= 1
        full = len(checkpoints) >= _MIN_CHECKPOINTS and self._count >= MAX_CHECKPOINTS_TOTAL
        if full or len(checkpoints) >= MAX_CHECKPOINTS:
            checkpoints = checkpoints[1:]
            self._count -= 1
            self._truncated.add(key)
        self._checkpoints[key] = (*checkpoints, checkpoint)
        self._count += 1

    def drop(self, key: K) -> None:
        """Forget a topic that the client unsubscribed from."""
        self._remove(key)
        self._replies.pop(key, None)

    def last(self, key: K) -> Checkpoint:
        """The newest checkpoint; the topic must be known."""
        return self._checkpoints[key][-1]

    def find(self, key: K, serial: int) -> Checkpoint | None:
        """The checkpoint in force at this write; None if it was dropped.

        The first checkpoint also covers the writes before it.
        """
        checkpoints = self._checkpoints[key]
        for checkpoint in reversed(checkpoints):
            if checkpoint.serial <= serial:
                return checkpoint
        return None if key in self._truncated else checkpoints[0]

    def _remove(self, key: K) -> None:
        self._count -= len(self._checkpoints.pop(key, ()))
        self._truncated.discard(key)
