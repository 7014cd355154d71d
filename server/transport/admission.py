"""Decides who may open a connection, before any token is looked at."""

from server.core.errors import FloorcastError
from server.core.limits.connections import ConnectionLease, ConnectionLimits, ConnectRate
from server.ports import Clock, SharedLimits


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
        shared_limits: SharedLimits | None = None,
    ) -> None:
        self._limits = limits
        self._rate = rate
        self._clock = clock
        self._max_refused = max_refused
        # What the other nodes have to say, where there are any.
        self._shared_limits = shared_limits
        self._refused_count = 0
        self.drain_error: FloorcastError | None = None

    async def admit(self, ip: str) -> tuple[ConnectionLease | None, FloorcastError | None]:
        """A place, or the reason why there is none; raises it where even that is too much."""
        if self.drain_error is not None:
            raise self.drain_error
        try:
            self._rate.check(ip, self._clock.monotonic())
            lease = self._limits.open(ip)
            if self._shared_limits is not None:
                await self._share(self._shared_limits, lease)
            return lease, None
        except FloorcastError as error:
            if self._refused_count >= self._max_refused or self.drain_error is not None:
                raise
            self._refused_count += 1
            return None, error

    async def identify(self, lease: ConnectionLease, org: str, user_id: str) -> None:
        """The connection is a user's, who is refused where all nodes have too many of them.

        To be forgotten as often as it was said.
        """
        lease.identify(org, user_id)
        user = (org, user_id)
        if self._shared_limits is None or lease.is_shared(user):
            return
        try:
            await self._shared_limits.acquire(user)
        except BaseException:
            lease.forget(org, user_id)
            raise
        lease.add_shared(user)

    async def _share(self, shared_limits: SharedLimits, lease: ConnectionLease) -> None:
        try:
            await shared_limits.acquire(lease.address)
            lease.add_shared(lease.address)
            if self.drain_error is not None:
                raise self.drain_error
        except BaseException:
            lease.close()
            raise

    def release_refused(self) -> None:
        """A client that had been let in to hear why has gone."""
        self._refused_count -= 1
