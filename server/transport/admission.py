"""Decides who may open a connection, before any token is looked at."""

from server.core.errors import FloorcastError
from server.core.limits import ConnectionLease, ConnectionLimits, ConnectRate
from server.ports import Clock


class Admission:
    """Counts connections and attempts.

    Socket.IO can give a reason only to a client that has opened a connection. So a refused one
    is let in as far as hearing why, for a few seconds and without a place of its own; when too
    many of those are there, the next is turned away on HTTP.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        rate: ConnectRate,
        clock: Clock,
        *,
        max_refused: int,
    ) -> None:
        self._limits = limits
        self._rate = rate
        self._clock = clock
        self._max_refused = max_refused
        self._refused = 0
        self.closed_for: FloorcastError | None = None

    def admit(self, ip: str) -> tuple[ConnectionLease | None, FloorcastError | None]:
        """A place, or the reason why there is none; raises it where even that is too much."""
        if self.closed_for is not None:
            raise self.closed_for
        try:
            self._rate.check(ip, self._clock.monotonic())
            return self._limits.open(ip), None
        except FloorcastError as error:
            if self._refused >= self._max_refused:
                raise
            self._refused += 1
            return None, error

    def release_refused(self) -> None:
        """A client that had been let in to hear why has gone."""
        self._refused -= 1
