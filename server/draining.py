"""Sends everybody away before the process ends, each at a moment of its own."""

import random
from collections.abc import Callable, Iterable

from server.core.errors import FloorcastError
from server.ports import Clock
from server.transport import Connection

# Half of the time is for the moments, a quarter for who is still waiting for an answer, and the
# rest for what comes after: closing and stopping.
_SPREAD_SHARE = 0.5
_BUSY_SHARE = 0.75


class Drain:
    """Who is told to go, and when; false when all have gone."""

    def __init__(
        self,
        connections: Iterable[Connection],
        *,
        reason: FloorcastError,
        within_seconds: float,
        flush: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._reason = reason
        self._flush = flush
        self._clock = clock
        now = clock.monotonic()
        self._busy_deadline = now + within_seconds * _BUSY_SHARE
        self._scheduled: list[tuple[float, Connection]] = []
        for connection in connections:
            wait_seconds = random.uniform(0, within_seconds * _SPREAD_SHARE)
            connection.emit("reconnect_hint", {"after_ms": int(wait_seconds * 1000)})
            self._scheduled.append((now + wait_seconds, connection))
        # The first stand at the end, where they are cheap to take.
        self._scheduled.sort(key=lambda each: each[0], reverse=True)
        self._busy: list[Connection] = []

    def __bool__(self) -> bool:
        return bool(self._scheduled or self._busy)

    def tick(self) -> None:
        """Let those go whose moment has come, with all that is meant for them.

        Whoever waits for an answer goes when it has that: what it sent may be accepted already.
        """
        now = self._clock.monotonic()
        due, self._busy = self._busy, []
        while self._scheduled and self._scheduled[-1][0] <= now:
            due.append(self._scheduled.pop()[1])
        self._flush()
        for connection in due:
            if connection.busy and not connection.closed and now < self._busy_deadline:
                self._busy.append(connection)
            else:
                connection.disconnect(self._reason, reconnect=True)
