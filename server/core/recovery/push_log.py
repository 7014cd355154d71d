"""The recent pushes of one topic or client, to send again to clients that missed them."""

from collections import deque
from typing import NamedTuple


class LoggedPush(NamedTuple):
    """A pushed event: its serial, the entry it followed, and the clients it excludes."""

    serial: int
    seq: int
    event: bytes
    excluded: frozenset[str] = frozenset()


class PushLog:
    """The newest pushes, bounded by count and by bytes."""

    __slots__ = ("_bytes", "_dropped_serial", "_max_bytes", "_max_count", "_pushes")

    def __init__(self, *, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._pushes: deque[LoggedPush] = deque()
        self._bytes = 0
        # The serial of the newest push that was dropped.
        self._dropped_serial = 0

    def __len__(self) -> int:
        return len(self._pushes)

    def append(self, push: LoggedPush) -> None:
        """Add the newest push; drops the oldest ones if there is no room."""
        pushes = self._pushes
        pushes.append(push)
        self._bytes += len(push.event)
        while len(pushes) > self._max_count or self._bytes > self._max_bytes:
            oldest = pushes.popleft()
            self._bytes -= len(oldest.event)
            self._dropped_serial = oldest.serial

    def after(self, serial: int, client_id: str) -> list[LoggedPush] | None:
        """The pushes to this client after a write; None if some were dropped."""
        if serial < self._dropped_serial:
            return None
        missed: list[LoggedPush] = []
        for push in reversed(self._pushes):
            if push.serial <= serial:
                break
            if client_id not in push.excluded:
                missed.append(push)
        missed.reverse()
        return missed

    def pop_after(self, serial: int) -> list[bytes]:
        """Remove and return the events pushed after a write, to send them again."""
        events: list[bytes] = []
        while self._pushes and self._pushes[-1].serial > serial:
            event = self._pushes.pop().event
            self._bytes -= len(event)
            events.append(event)
        events.reverse()
        return events
