"""The subjects in use on one node, and when those that nobody uses any more are vacated."""

from server.core.deadlines import Deadlines
from server.core.occupancy.subjects import Subject


class OccupancyTable:
    """Occupied subjects; one that is left stays occupied for the grace time."""

    def __init__(self, *, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._occupied: set[Subject] = set()
        self._leaving: Deadlines[Subject] = Deadlines()

    def __len__(self) -> int:
        return len(self._occupied)

    def is_used(self, subject: Subject) -> bool:
        """Whether a subject is in use, and not only occupied for the grace time."""
        return subject in self._occupied and subject not in self._leaving

    def enter(self, subject: Subject) -> bool:
        """Record that a subject is in use; True if it was not occupied."""
        self._leaving.cancel(subject)
        if subject in self._occupied:
            return False
        self._occupied.add(subject)
        return True

    def leave(self, subject: Subject, now: float) -> None:
        """Record that nobody uses a subject any more; a no-op if it is not occupied."""
        if subject in self._occupied:
            self._leaving.set(subject, now + self._grace_seconds)

    def pop_vacated(self, now: float) -> list[Subject]:
        """Remove and return the subjects whose grace time is over."""
        vacated = self._leaving.pop_due(now)
        self._occupied.difference_update(vacated)
        return vacated
