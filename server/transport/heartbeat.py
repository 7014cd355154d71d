"""Checks by the clock that a connection joins in time, answers pings and reads."""

from enum import Enum

from server.transport.config import TransportConfig
from server.transport.links import Carrier


class Health(Enum):
    """The result of a check; every value but `OK` and `PING_DUE` ends the connection."""

    OK = "fine"
    PING_DUE = "due for a ping"
    PING_TIMEOUT = "did not answer a ping"
    NOT_READING = "answers pings but reads nothing"
    NOT_JOINED = "never joined a namespace"
    REFUSED = "was refused and stayed"


class Heartbeat:
    """The deadlines of one connection."""

    __slots__ = (
        "_close_at",
        "_config",
        "_extended",
        "_join_by",
        "_last_taken_bytes",
        "_ping_at",
        "_pong_by",
    )

    def __init__(self, config: TransportConfig, now: float, join_seconds: float) -> None:
        self._config = config
        self._join_by = now + join_seconds
        self._ping_at = now + config.ping_interval_seconds
        self._pong_by: float | None = None
        self._close_at: float | None = None
        self._extended = False
        self._last_taken_bytes = -1

    def close_at(self, when: float) -> bool:
        """Set the time by which the client must close; False if it was already set."""
        if self._close_at is not None:
            return False
        self._close_at = when
        return True

    def pong(self) -> bool:
        """Record a pong; False if no ping is outstanding."""
        awaited = self._pong_by is not None
        self._pong_by = None
        self._extended = False
        return awaited

    def check(self, now: float, carrier: Carrier | None, *, joined: bool, clogged: bool) -> Health:
        """Check all deadlines; after `PING_DUE` the ping counts as sent."""
        if self._close_at is not None and now >= self._close_at:
            return Health.REFUSED
        if not joined and now >= self._join_by:
            return Health.NOT_JOINED
        if self._pong_by is not None:
            if now < self._pong_by:
                return Health.OK
            if not clogged or self._extended:
                return Health.PING_TIMEOUT
            # The ping is queued behind bytes that the client has not read: extend once.
            self._extended = True
            self._pong_by = now + self._config.ping_timeout_seconds
            return Health.OK
        if now < self._ping_at:
            return Health.OK
        if self._is_stalled(carrier):
            return Health.NOT_READING
        self._ping_at = now + self._config.ping_interval_seconds
        self._pong_by = now + self._config.ping_timeout_seconds
        return Health.PING_DUE

    def next_check(self, *, joined: bool) -> float:
        """The time of the next check."""
        check_at = self._ping_at if self._pong_by is None else self._pong_by
        if self._close_at is not None:
            return min(check_at, self._close_at)
        return check_at if joined else min(check_at, self._join_by)

    def _is_stalled(self, carrier: Carrier | None) -> bool:
        # A client can send pongs without reading pings, but it cannot fake reading: nothing
        # taken since the last ping means that it reads nothing.
        if carrier is None or carrier.buffered_bytes == 0:
            self._last_taken_bytes = -1
            return False
        taken_bytes = carrier.taken_bytes
        stalled, self._last_taken_bytes = taken_bytes == self._last_taken_bytes, taken_bytes
        return stalled
