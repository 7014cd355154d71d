"""Admits or refuses new connections, before any token is verified."""

from server.core.errors import FloorcastError
from server.core.limits.connections import ConnectionLease, ConnectionLimits, ConnectRate
from server.ports import Clock, SharedLimits


class Admission:
    """Applies the limits on connections and on connection attempts.

    Socket.IO can give a reason only to a client with an open connection. A refused client is
    therefore connected without a lease for a few seconds, to receive a CONNECT_ERROR. If
    `max_refused` such clients are connected, the next one is refused on HTTP.
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
        # None if this node is alone.
        self._shared_limits = shared_limits
        self._refused_count = 0
        self.drain_error: FloorcastError | None = None

    @property
    def refuses_on_http(self) -> bool:
        """Whether a client that must be refused gets no connection to receive the reason."""
        return self._refused_count >= self._max_refused or self.drain_error is not None

    async def admit(self, ip: str) -> tuple[ConnectionLease | None, FloorcastError | None]:
        """Admit a connection from this address: a lease, or the error to refuse it with.

        Raises the error if the client must be refused on HTTP.
        """
        if self.drain_error is not None:
            raise self.drain_error
        try:
            self._rate.check(ip, self._clock.monotonic())
            lease = self._limits.open(ip)
            if self._shared_limits is not None:
                await self._share(self._shared_limits, lease)
            return lease, None
        except FloorcastError as error:
            if self.refuses_on_http:
                raise
            self._refused_count += 1
            return None, error

    async def identify(self, lease: ConnectionLease, org: str, user_id: str) -> None:
        """Count the connection for a user; raises `LimitError` over the limit of all nodes.

        Call `lease.forget` once for every successful call.
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
        """Record that a refused client has disconnected."""
        self._refused_count -= 1
