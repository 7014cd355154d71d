"""Judges by the clock whether a connection is alive: joined in time, answering, and reading."""

from enum import Enum

from server.transport.config import TransportConfig
from server.transport.links import Carrier


class Verdict(Enum):
    """What is to be done about a connection now."""

    FINE = "fine"
    PING = "due for a ping"
    SILENT = "did not answer a ping"
    DEAF = "answers pings but reads nothing"
    STRANGER = "never joined a namespace"
    REFUSED = "was refused and stayed"


class Pulse:
    """The deadlines of one connection."""

    __slots__ = (
        "_config",
        "_join_by",
        "_leave_by",
        "_ping_at",
        "_pong_by",
        "_spared",
        "_stalled_at",
    )

    def __init__(self, config: TransportConfig, now: float, join_seconds: float) -> None:
        self._config = config
        self._join_by = now + join_seconds
        self._ping_at = now + config.ping_interval_seconds
        self._pong_by: float | None = None
        self._leave_by: float | None = None
        self._spared = False
        self._stalled_at = -1

    def leave_by(self, when: float) -> bool:
        """The client is to be gone by then; False where that was said before."""
        if self._leave_by is not None:
            return False
        self._leave_by = when
        return True

    def pong(self) -> bool:
        """An answer came; False where nothing had been asked."""
        asked = self._pong_by is not None
        self._pong_by = None
        self._spared = False
        return asked

    def judge(self, now: float, carrier: Carrier | None, *, joined: bool, clogged: bool) -> Verdict:
        """What is due now; a ping that is due counts as sent."""
        if self._leave_by is not None and now >= self._leave_by:
            return Verdict.REFUSED
        if not joined and now >= self._join_by:
            return Verdict.STRANGER
        if self._pong_by is not None:
            if now < self._pong_by:
                return Verdict.FINE
            if not clogged or self._spared:
                return Verdict.SILENT
            # Our ping waits behind what the client has not read yet: once, it gets the time again.
            self._spared = True
            self._pong_by = now + self._config.ping_timeout_seconds
            return Verdict.FINE
        if now < self._ping_at:
            return Verdict.FINE
        if self._reads_nothing(carrier):
            return Verdict.DEAF
        self._ping_at = now + self._config.ping_interval_seconds
        self._pong_by = now + self._config.ping_timeout_seconds
        return Verdict.PING

    def next_look(self, *, joined: bool) -> float:
        """When to judge again."""
        moment = self._ping_at if self._pong_by is None else self._pong_by
        if self._leave_by is not None:
            return min(moment, self._leave_by)
        return moment if joined else min(moment, self._join_by)

    def _reads_nothing(self, carrier: Carrier | None) -> bool:
        # Pongs can be sent without reading a ping; bytes that stand still cannot be forged.
        if carrier is None or carrier.buffered_bytes == 0:
            self._stalled_at = -1
            return False
        taken = carrier.taken_bytes
        stalled, self._stalled_at = taken == self._stalled_at, taken
        return stalled
