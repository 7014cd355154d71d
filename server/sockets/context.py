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
from server.sockets.clients import Peer
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


class Floor:
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
        self._peers: dict[str, Peer] = {}
        self._expiries: Deadlines[str] = Deadlines()

    def peer(self, connection_id: str) -> Peer:
        """One who has joined."""
        return self._peers[connection_id]

    def find(self, connection_id: str) -> Peer | None:
        """One who may have joined."""
        return self._peers.get(connection_id)

    def end_half_open(self, connection_id: str) -> None:
        """Its client is back, or elsewhere, and knew before the server that it was cut off."""
        peer = self.find(connection_id)
        if peer is not None:
            peer.link.abort("its client has come back")

    def peers(self) -> tuple[Peer, ...]:
        """Everybody, as they are at this moment."""
        return tuple(self._peers.values())

    @property
    def watched_count(self) -> int:
        """How many tokens are watched for their end."""
        return len(self._expiries)

    async def claim(self, link: Connection, principal: Principal) -> None:
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

    def unclaim(self, link: Connection, principal: Principal) -> None:
        """Whether it has joined is settled."""
        if link.lease is not None:
            link.lease.forget(principal.org, principal.user_id)

    def join(self, call: Call, principal: Principal, session_id: str | None) -> Peer:
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
                    ip=link.origin.ip,
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
        peer = Peer(call.connection_id, call.namespace, principal, link)
        self._peers[call.connection_id] = peer
        self._watch(peer)
        return peer

    def leave(self, connection_id: str) -> None:
        """Give everything back; twice is once."""
        peer = self._peers.pop(connection_id, None)
        if peer is None:
            return
        self._expiries.cancel(connection_id)
        self.event_limits.close(connection_id)
        self.registry.remove(connection_id)
        if peer.link.lease is not None:
            peer.link.lease.forget(peer.principal.org, peer.principal.user_id)

    async def refresh(self, peer: Peer, token: str) -> Principal:
        """Go on with a newer token of the same user."""
        principal = await self.verifier.verify(token)
        if (principal.org, principal.user_id) != (peer.principal.org, peer.principal.user_id):
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, "the token is another user's")
        if peer.connection_id in self._peers:
            peer.principal = principal
            peer.warned = False
            self.registry.renew(peer.connection_id, principal.expires_at)
            self._watch(peer)
        return principal

    def welcome(self, peer: Peer, session_id: str | None) -> bytes:
        """The first event of a joined client, as its frame."""
        body: dict[str, object] = {
            "connection_id": peer.connection_id,
            "user_id": peer.principal.user_id,
            "org": peer.principal.org,
            "server_time": int(self.clock.time() * 1000),
            "ping_interval_ms": self.config.ping_interval_ms,
            "resume_window_ms": self.config.resume_window_ms,
        }
        if session_id is not None:
            body["session_id"] = session_id
        return peer.link.event_frame(peer.namespace, "welcome", dumps(body))

    def tick(self) -> None:
        """Tell those whose token ends soon, and end those whose token has ended."""
        for connection_id in self._expiries.due(self.clock.monotonic()):
            peer = self._peers.get(connection_id)
            if peer is None:
                # Its other namespace was due in the same moment, and took it along.
                continue
            left = peer.principal.expires_at - self.clock.time()
            if left + self.config.expiry_grace_seconds <= 0:
                peer.link.end(
                    AccessError(ErrorCode.AUTH_EXPIRED, "the token has expired"), reconnect=True
                )
                continue
            if left <= self.config.expiring_notice_seconds and not peer.warned:
                peer.warned = True
                body: dict[str, object] = {"expires_in_ms": max(0, int(left * 1000))}
                frame = peer.link.event_frame(peer.namespace, "token_expiring", dumps(body))
                peer.link.write(frame)
            self._watch(peer)

    def _watch(self, peer: Peer) -> None:
        left = peer.principal.expires_at - self.clock.time()
        if left == float("inf"):
            return
        wait = left - self.config.expiring_notice_seconds
        if peer.warned:
            wait = left + self.config.expiry_grace_seconds
        self._expiries.set(peer.connection_id, self.clock.monotonic() + max(0.0, wait))
