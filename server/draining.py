"""Disconnects all clients before the process ends, spread over time."""

import random
from collections.abc import Callable, Iterable

from server.core.errors import FloorcastError
from server.ports import Clock
from server.transport import Connection

# Disconnects are spread over half of the time; busy connections have until three quarters of it.
# The rest is for closing and stopping.
_SPREAD_SHARE = 0.5
_BUSY_SHARE = 0.75
# Few connections need less: at this rate other nodes do not notice their reconnects.
_DISCONNECTS_PER_SECOND = 2


class Drain:
    """Disconnects each connection at a random time that a `reconnect_hint` announces at once.

    Falsy when all are disconnected, or have left by themselves.
    """

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
        found = [*connections]
        spread_seconds = min(within_seconds * _SPREAD_SHARE, len(found) / _DISCONNECTS_PER_SECOND)
        for connection in found:
            wait_seconds = random.uniform(0, spread_seconds)
            connection.emit("reconnect_hint", {"after_ms": int(wait_seconds * 1000)})
            self._scheduled.append((now + wait_seconds, connection))
        # Latest first: popping the next one from the end is cheap.
        self._scheduled.sort(key=lambda each: each[0], reverse=True)
        self._busy: list[Connection] = []
        # How many connections there were.
        self.begun = len(self._scheduled)

    @property
    def remaining(self) -> int:
        """How many connections are still open."""
        return len(self._scheduled) + len(self._busy)

    def __bool__(self) -> bool:
        return bool(self._scheduled or self._busy)

    def tick(self) -> None:
        """Disconnect the connections that are due, after pending entries are flushed.

        A busy connection gets its reply first: its request may be accepted already.
        """
        now = self._clock.monotonic()
        self._scheduled = [each for each in self._scheduled if not each[1].closed]
        due, self._busy = self._busy, []
        while self._scheduled and self._scheduled[-1][0] <= now:
            due.append(self._scheduled.pop()[1])
        self._flush()
        for connection in due:
            if connection.busy and not connection.closed and now < self._busy_deadline:
                self._busy.append(connection)
            else:
                connection.disconnect(self._reason, reconnect=True)
