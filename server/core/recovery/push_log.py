"""What was said apart from a topic's messages and has to be said again to who was cut off."""

from collections import deque
from typing import NamedTuple


class Saying(NamedTuple):
    """One event, between which messages it stood, and who was not to hear it."""

    serial: int
    seq: int
    event: bytes
    skip: frozenset[str] = frozenset()


class Told:
    """The last sayings, bounded by count and by bytes."""

    __slots__ = ("_bytes", "_forgotten", "_max_bytes", "_max_count", "_sayings")

    def __init__(self, *, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._sayings: deque[Saying] = deque()
        self._bytes = 0
        # The last write that is not remembered.
        self._forgotten = 0

    def __len__(self) -> int:
        return len(self._sayings)

    def append(self, saying: Saying) -> None:
        """Something was said."""
        sayings = self._sayings
        sayings.append(saying)
        self._bytes += len(saying.event)
        while len(sayings) > self._max_count or self._bytes > self._max_bytes:
            oldest = sayings.popleft()
            self._bytes -= len(oldest.event)
            self._forgotten = oldest.serial

    def after(self, serial: int, listener: str) -> list[Saying] | None:
        """What this listener was told after a write; None where some of it is forgotten."""
        if serial < self._forgotten:
            return None
        missed: list[Saying] = []
        for saying in reversed(self._sayings):
            if saying.serial <= serial:
                break
            if listener not in saying.skip:
                missed.append(saying)
        missed.reverse()
        return missed

    def take_back(self, serial: int) -> list[bytes]:
        """What was said after a write, to be said anew; it is remembered here no longer."""
        events: list[bytes] = []
        while self._sayings and self._sayings[-1].serial > serial:
            event = self._sayings.pop().event
            self._bytes -= len(event)
            events.append(event)
        events.reverse()
        return events
