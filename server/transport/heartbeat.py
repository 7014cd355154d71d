"""Judges by the clock whether a connection is alive: joined in time, answering, and reading."""

from enum import Enum

from server.transport.config import TransportConfig
from server.transport.links import Carrier


class Health(Enum):
    """What is to be done about a connection now."""

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
        """The client is to be gone by then; False where that was said before."""
        if self._close_at is not None:
            return False
        self._close_at = when
        return True

    def pong(self) -> bool:
        """An answer came; False where nothing had been asked."""
        asked = self._pong_by is not None
        self._pong_by = None
        self._extended = False
        return asked

    def check(self, now: float, carrier: Carrier | None, *, joined: bool, clogged: bool) -> Health:
        """What is due now; a ping that is due counts as sent."""
        if self._close_at is not None and now >= self._close_at:
            return Health.REFUSED
        if not joined and now >= self._join_by:
            return Health.NOT_JOINED
        if self._pong_by is not None:
            if now < self._pong_by:
                return Health.OK
            if not clogged or self._extended:
                return Health.PING_TIMEOUT
            # Our ping waits behind what the client has not read yet: once, it gets the time again.
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
        """When to judge again."""
        moment = self._ping_at if self._pong_by is None else self._pong_by
        if self._close_at is not None:
            return min(moment, self._close_at)
        return moment if joined else min(moment, self._join_by)

    def _is_stalled(self, carrier: Carrier | None) -> bool:
        # Pongs can be sent without reading a ping; bytes that stand still cannot be forged.
        if carrier is None or carrier.buffered_bytes == 0:
            self._last_taken_bytes = -1
            return False
        taken = carrier.taken_bytes
        stalled, self._last_taken_bytes = taken == self._last_taken_bytes, taken
        return stalled
