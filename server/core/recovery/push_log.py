"""What was said apart from a topic's messages and has to be said again to who was cut off."""

from collections import deque
from typing import NamedTuple


class LoggedPush(NamedTuple):
    """One event, between which messages it stood, and who was not to hear it."""

    serial: int
    seq: int
    event: bytes
    excluded: frozenset[str] = frozenset()


class PushLog:
    """The last sayings, bounded by count and by bytes."""

    __slots__ = ("_bytes", "_dropped_serial", "_max_bytes", "_max_count", "_pushes")

    def __init__(self, *, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._pushes: deque[LoggedPush] = deque()
        self._bytes = 0
        # The last write that is not remembered.
        self._dropped_serial = 0

    def __len__(self) -> int:
        return len(self._pushes)

    def append(self, push: LoggedPush) -> None:
        """Something was said."""
        sayings = self._pushes
        sayings.append(push)
        self._bytes += len(push.event)
        while len(sayings) > self._max_count or self._bytes > self._max_bytes:
            oldest = sayings.popleft()
            self._bytes -= len(oldest.event)
            self._dropped_serial = oldest.serial

    def after(self, serial: int, client_id: str) -> list[LoggedPush] | None:
        """What this listener was told after a write; None where some of it is forgotten."""
        if serial < self._dropped_serial:
            return None
        missed: list[LoggedPush] = []
        for saying in reversed(self._pushes):
            if saying.serial <= serial:
                break
            if client_id not in saying.excluded:
                missed.append(saying)
        missed.reverse()
        return missed

    def pop_after(self, serial: int) -> list[bytes]:
        """What was said after a write, to be said anew; it is remembered here no longer."""
        events: list[bytes] = []
        while self._pushes and self._pushes[-1].serial > serial:
            event = self._pushes.pop().event
            self._bytes -= len(event)
            events.append(event)
        events.reverse()
        return events
