"""How far one client had come in each of its topics, at any write that it may have seen last."""

from collections.abc import Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

# A client that falls behind and catches up leaves a few marks each time. Older ones than these
# matter only to a client that has seen nothing of all that came since.
MAX_MARKS = 64
# And so many in all its topics. A client that falls behind in 200 of them again and again, so as
# to fill our memory, keeps but the last two in each.
MAX_MARKS_IN_ALL = 1024
_LEAST_MARKS = 2


class Writes(Protocol):
    """What was written to all who hear a topic at one pace."""

    def seq_at(self, serial: int, least: int) -> int | None:
        """How far this write had brought them; None where that is forgotten."""


class Mark(NamedTuple):
    """What is true of one topic from a certain write on, until the next mark."""

    serial: int
    # So far the client had come there, and by one message more with each of so many writes.
    seq: int
    steps: int = 0
    # Or as far as everybody of its pace.
    follows: Writes | None = None
    # What was told apart from messages, up to this write; None where that was told as it came.
    told: int | None = None
    # And what it had yet to be told wherever it stood.
    needs_snapshot: bool = False
    needs_status: bool = False

    def seq_at(self, serial: int) -> int | None:
        """How far the client had come when this was written; None where that is forgotten."""
        if self.follows is not None:
            return self.follows.seq_at(serial, self.seq)
        return self.seq + max(0, min(serial - self.serial + 1, self.steps))


class Answer(NamedTuple):
    """A place that the client was told in an answer, which has no number and may be lost."""

    serial: int
    # Whether it had another place there before.
    moved: bool


class Trail(Generic[K]):
    """The marks of one client."""

    __slots__ = ("_answering", "_answers", "_count", "_cropped", "_marks", "alias", "born")

    def __init__(self, born: int, alias: str | None = None) -> None:
        # The last write before its first; and the offset of another node that stands for it, where
        # the client was there before.
        self.born = born
        self.alias = alias
        self._marks: dict[K, tuple[Mark, ...]] = {}
        self._count = 0
        # The topics whose oldest marks are forgotten.
        self._cropped: set[K] = set()
        self._answers: dict[K, Answer] = {}
        self._answering: list[K] = []

    def begin(self, key: K, answer: Answer) -> None:
        """The client is told anew where it stands."""
        self._forget(key)
        self._answers[key] = answer
        self._answering.append(key)

    def answered(self, serial: int) -> None:
        """The answer goes out now, behind all that was written while it was being made."""
        for key in self._answering:
            if key in self._answers:
                self._answers[key] = self._answers[key]._replace(serial=serial)
        self._answering.clear()

    def unsure(self, key: K, serial: int) -> Answer | None:
        """The answer of which a client may not know that has seen no more than this."""
        answer = self._answers.get(key)
        return answer if answer is not None and serial <= answer.serial else None

    def note(self, key: K, mark: Mark) -> None:
        """Something else is true from now on."""
        marks = self._marks.get(key, ())
        if marks and marks[-1].serial == mark.serial:
            # Nothing was written meanwhile.
            marks = marks[:-1]
            self._count -= 1
        full = len(marks) >= _LEAST_MARKS and self._count >= MAX_MARKS_IN_ALL
        if full or len(marks) >= MAX_MARKS:
            marks = marks[1:]
            self._count -= 1
            self._cropped.add(key)
        self._marks[key] = (*marks, mark)
        self._count += 1

    def drop(self, key: K) -> None:
        """The client wants no more of a topic."""
        self._forget(key)
        self._answers.pop(key, None)

    def last(self, key: K) -> Mark:
        """What is true now."""
        return self._marks[key][-1]

    def find(self, key: K, serial: int) -> Mark | None:
        """What was true when this was written; None where that is forgotten.

        Before the first mark the client had no more than that says.
        """
        marks = self._marks[key]
        for mark in reversed(marks):
            if mark.serial <= serial:
                return mark
        return None if key in self._cropped else marks[0]

    def _forget(self, key: K) -> None:
        self._count -= len(self._marks.pop(key, ()))
        self._cropped.discard(key)
