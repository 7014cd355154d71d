"""What both namespaces share: the guards, the registry, the peers and their tokens."""

from dataclasses import dataclass
from datetime import UTC, datetime

from client_sdk.contract import ErrorCode
from server.access import Principal
from server.core.connections import ConnectionManager, ConnectionRecord
from server.core.counters import Counters
from server.core.deadlines import Deadlines
from server.core.errors import AccessError
from server.core.limits.events import EventLimits
from server.core.wire.strict_json import dumps
from server.ports import Clock
from server.sockets.clients import JoinedClient
from server.sockets.guards import Verifier
from server.sockets.pipeline import Call
from server.transport import Admission, Connection


@dataclass(frozen=True, slots=True)
class SocketsConfig:
    """What clients are told, and how their tokens end."""

    anonymous_market: bool
    ping_interval_ms: int
    resume_window_ms: int
    expiring_notice_seconds: float
    expiry_grace_seconds: float


class NamespaceContext:
    """Everybody who has joined, in either namespace."""

    def __init__(
        self,
        config: SocketsConfig,
        *,
        verifier: Verifier,
        registry: ConnectionManager,
        admission: Admission,
        event_limits: EventLimits,
        counters: Counters,
        clock: Clock,
    ) -> None:
        self.config = config
        self.verifier = verifier
        self.registry = registry
        self.admission = admission
        self.event_limits = event_limits
        self.counters = counters
        self.clock = clock
        self._clients: dict[str, JoinedClient] = {}
        self._expiries: Deadlines[str] = Deadlines()

    def client(self, connection_id: str) -> JoinedClient:
        """One who has joined."""
        return self._clients[connection_id]

    def find_client(self, connection_id: str) -> JoinedClient | None:
        """One who may have joined."""
        return self._clients.get(connection_id)

    def abort_half_open(self, connection_id: str) -> None:
        """Its client is back, or elsewhere, and knew before the server that it was cut off."""
        peer = self.find_client(connection_id)
        if peer is not None:
            peer.link.abort("its client has come back")

    def clients(self) -> tuple[JoinedClient, ...]:
        """Everybody, as they are at this moment."""
        return tuple(self._clients.values())

    @property
    def watched_token_count(self) -> int:
        """How many tokens are watched for their end."""
        return len(self._expiries)

    async def reserve(self, link: Connection, principal: Principal) -> None:
        """Count a connection for its user, on all nodes; raises where they have too many.

        It is to be let go of once the client has joined, or has not: its places count too.
        """
        lease = link.lease
        assert lease is not None  # only a refused connection has none, and it never gets here
        if principal.anonymous:
            # No other connection is the same user's.
            lease.identify(principal.org, principal.user_id)
        else:
            await self.admission.identify(lease, principal.org, principal.user_id)

    def release(self, link: Connection, principal: Principal) -> None:
        """Whether it has joined is settled."""
        if link.lease is not None:
            link.lease.forget(principal.org, principal.user_id)

    def add_client(self, call: Call, principal: Principal, session_id: str | None) -> JoinedClient:
        """Take a client in; raises, and leaves nothing behind, where a limit is reached."""
        link = call.link
        lease = link.lease
        assert lease is not None  # as above
        lease.identify(principal.org, principal.user_id)
        try:
            self.registry.add(
                ConnectionRecord(
                    connection_id=call.connection_id,
                    user_id=principal.user_id,
                    org=principal.org,
                    namespace=call.namespace,
                    device_id=link.sid,
                    ip=link.request.ip,
                    connected_at=datetime.fromtimestamp(self.clock.time(), UTC),
                    expires_at=principal.expires_at,
                    session_id=session_id,
                )
            )
        except BaseException:
            lease.forget(principal.org, principal.user_id)
            raise
        self.event_limits.open(
            call.connection_id, principal.org, principal.user_id, self.clock.monotonic()
        )
        peer = JoinedClient(call.connection_id, call.namespace, principal, link)
        self._clients[call.connection_id] = peer
        self._schedule_expiry(peer)
        return peer

    def remove_client(self, connection_id: str) -> None:
        """Give everything back; twice is once."""
        peer = self._clients.pop(connection_id, None)
        if peer is None:
            return
        self._expiries.cancel(connection_id)
        self.event_limits.close(connection_id)
        self.registry.remove(connection_id)
        if peer.link.lease is not None:
            peer.link.lease.forget(peer.principal.org, peer.principal.user_id)

    async def refresh_token(self, client: JoinedClient, token: str) -> Principal:
        """Go on with a newer token of the same user."""
        principal = await self.verifier.verify(token)
        if (principal.org, principal.user_id) != (client.principal.org, client.principal.user_id):
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, "the token is another user's")
        if client.connection_id in self._clients:
            client.principal = principal
            client.warned = False
            self.registry.renew(client.connection_id, principal.expires_at)
            self._schedule_expiry(client)
        return principal

    def welcome_frame(self, client: JoinedClient, session_id: str | None) -> bytes:
        """The first event of a joined client, as its frame."""
        body: dict[str, object] = {
            "connection_id": client.connection_id,
            "user_id": client.principal.user_id,
            "org": client.principal.org,
            "server_time": int(self.clock.time() * 1000),
            "ping_interval_ms": self.config.ping_interval_ms,
            "resume_window_ms": self.config.resume_window_ms,
        }
        if session_id is not None:
            body["session_id"] = session_id
        return client.link.event_frame(client.namespace, "welcome", dumps(body))

    def tick(self) -> None:
        """Tell those whose token ends soon, and end those whose token has ended."""
        for connection_id in self._expiries.pop_due(self.clock.monotonic()):
            peer = self._clients.get(connection_id)
            if peer is None:
                # Its other namespace was due in the same moment, and took it along.
                continue
            left = peer.principal.expires_at - self.clock.time()
            if left + self.config.expiry_grace_seconds <= 0:
                peer.link.disconnect(
                    AccessError(ErrorCode.AUTH_EXPIRED, "the token has expired"), reconnect=True
                )
                continue
            if left <= self.config.expiring_notice_seconds and not peer.warned:
                peer.warned = True
                body: dict[str, object] = {"expires_in_ms": max(0, int(left * 1000))}
                frame = peer.link.event_frame(peer.namespace, "token_expiring", dumps(body))
                peer.link.write(frame)
            self._schedule_expiry(peer)

    def _schedule_expiry(self, client: JoinedClient) -> None:
        left = client.principal.expires_at - self.clock.time()
        if left == float("inf"):
            return
        wait = left - self.config.expiring_notice_seconds
        if client.warned:
            wait = left + self.config.expiry_grace_seconds
        self._expiries.set(client.connection_id, self.clock.monotonic() + max(0.0, wait))
