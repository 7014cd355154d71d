"""State shared by all namespaces: joined clients, their tokens and limits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from client_sdk.contract import ErrorCode
from server.access import AuthorizationRule, Principal
from server.core.connections import ConnectionManager, ConnectionRecord
from server.core.counters import Counters
from server.core.deadlines import Deadlines
from server.core.disconnects import DisconnectReason
from server.core.errors import AccessError, LimitError
from server.core.limits.connections import address_key
from server.core.limits.events import EventLimits, RateOutcome
from server.core.wire.strict_json import dumps
from server.ports import Clock
from server.sockets.clients import JoinedClient
from server.sockets.guards import Verifier, auth_request
from server.sockets.pipeline import ApplicationGuard, Call, Reply
from server.transport import Admission, Connection, RefusalLog

_MAX_SPREAD_MS = 30_000


@dataclass(frozen=True, slots=True)
class SocketsConfig:
    """Values of the welcome event, and the timing of token expiry."""

    anonymous_market: bool
    ping_interval_ms: int
    resume_window_ms: int
    expiring_notice_seconds: float
    expiry_grace_seconds: float


def reconnect_spread_ms(client_count: int) -> int:
    """Over how long clients must spread their reconnects if they all lose this node at once.

    Each learns it when it joins, the first ones from a nearly empty node. By the square root they
    too keep a distance: 5,000 clients make at most 1,700 attempts in the first second.
    """
    return min(int(120 * math.sqrt(client_count)), _MAX_SPREAD_MS)


class ClientListener(Protocol):
    """Hears of clients. Nothing here may raise or await: it runs inside connects."""

    def client_connected(self, client: JoinedClient, *, resumed: bool) -> None:
        """A client has joined a namespace, or resumed its connection there."""

    def client_disconnected(self, client: JoinedClient, reason: DisconnectReason) -> None:
        """A client has left a namespace, or has lost its connection; it may resume it."""


class RightsHolder(Protocol):
    """A namespace, as far as it grants its clients something that a token must allow."""

    async def end_forbidden(self, client: JoinedClient) -> Reply:
        """End what a refreshed token no longer allows; returns fields for the reply."""


class NamespaceContext:
    """The joined clients of all namespaces."""

    def __init__(
        self,
        config: SocketsConfig,
        *,
        verifier: Verifier,
        registry: ConnectionManager,
        admission: Admission,
        event_limits: EventLimits,
        counters: Counters,
        refusals: RefusalLog,
        clock: Clock,
        guards: Sequence[ApplicationGuard] = (),
        listeners: Sequence[ClientListener] = (),
        rule: AuthorizationRule | None = None,
    ) -> None:
        self.config = config
        self.verifier = verifier
        self.registry = registry
        self.admission = admission
        self.event_limits = event_limits
        self.counters = counters
        self.refusals = refusals
        self.clock = clock
        # Of the application; they run after the built-in ones.
        self.guards = guards
        self.rule = rule or AuthorizationRule()
        self._listeners = listeners
        # The namespaces by name; each adds itself.
        self.namespaces: dict[str, RightsHolder] = {}
        self._clients: dict[str, JoinedClient] = {}
        self._expiries: Deadlines[str] = Deadlines()

    def client(self, connection_id: str) -> JoinedClient:
        """The client of a connection; raises KeyError if it has not joined."""
        return self._clients[connection_id]

    def find_client(self, connection_id: str) -> JoinedClient | None:
        """The client of a connection, None if it has not joined."""
        return self._clients.get(connection_id)

    def report_connected(self, connection_id: str, *, resumed: bool) -> None:
        """Count a client whose connect is accepted, and report it to the listeners."""
        client = self._clients[connection_id]
        self.counters.count("clients.joined", client.namespace)
        for listener in self._listeners:
            listener.client_connected(client, resumed=resumed)

    def report_disconnected(self, connection_id: str, reason: DisconnectReason) -> None:
        """Count a client that has disconnected, and is still registered; report it."""
        client = self._clients[connection_id]
        self.counters.count("clients.left", client.namespace, reason.code)
        for listener in self._listeners:
            listener.client_disconnected(client, reason)

    def abort_half_open(self, connection_id: str) -> None:
        """Abort a connection whose client has reconnected before the server noticed the loss."""
        client = self.find_client(connection_id)
        if client is not None:
            client.link.abort("the client has reconnected")

    def clients(self) -> tuple[JoinedClient, ...]:
        """A snapshot of all joined clients."""
        return tuple(self._clients.values())

    @property
    def watched_token_count(self) -> int:
        """How many tokens have a scheduled expiry."""
        return len(self._expiries)

    async def reserve(self, link: Connection, principal: Principal) -> None:
        """Count a connection for its user on all nodes; raises `LimitError` if there are too many.

        You must call `release` once the join has succeeded or failed.
        """
        lease = link.lease
        assert lease is not None  # only a refused connection has none, and it cannot join
        if principal.anonymous:
            # Every anonymous user has one connection.
            lease.identify(principal.org, principal.user_id)
        else:
            await self.admission.identify(lease, principal.org, principal.user_id)

    def release(self, link: Connection, principal: Principal) -> None:
        """Undo one `reserve`; a joined client keeps its own count."""
        if link.lease is not None:
            link.lease.forget(principal.org, principal.user_id)

    def add_client(self, call: Call, principal: Principal, session_id: str | None) -> JoinedClient:
        """Register a joined client; raises `LimitError`, without side effects, at a limit."""
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
        # All anonymous clients of an address share one rate, as the connections of a user do.
        owner = ("", address_key(link.request.ip)) if principal.anonymous else principal.user
        self.event_limits.open(call.connection_id, *owner, self.clock.monotonic())
        client = JoinedClient(call.connection_id, call.namespace, principal, link)
        self._clients[call.connection_id] = client
        self._schedule_expiry(client)
        return client

    def charge(self, connection_id: str, cost: float) -> LimitError | None:
        """Count the cost of a client's event; the error if it is over the rate limit.

        Disconnects a client that floods.
        """
        verdict, retry_after_ms = self.event_limits.check(
            connection_id, self.clock.monotonic(), cost
        )
        if verdict is RateOutcome.GRANTED:
            return None
        error = LimitError(ErrorCode.LIMIT_RATE, "too many events", retry_after_ms=retry_after_ms)
        if verdict is RateOutcome.FLOODING:
            link = self._clients[connection_id].link
            self.refusals.record(error.code.value, error.message, link.request.ip)
            link.disconnect(error, reconnect=True)
        return error

    def remove_client(self, connection_id: str) -> None:
        """Remove a client and release its limits; a no-op if it is not registered."""
        client = self._clients.pop(connection_id, None)
        if client is None:
            return
        self._expiries.cancel(connection_id)
        self.event_limits.close(connection_id)
        self.registry.remove(connection_id)
        if client.link.lease is not None:
            client.link.lease.forget(client.principal.org, client.principal.user_id)

    async def refresh_token(self, client: JoinedClient, token: str) -> tuple[Principal, Reply]:
        """Replace a client's token; raises `AccessError` if it is invalid or another user's.

        Also replaces it in other namespaces of the connection where the client has the same
        rights: most clients have one token for all. Returns fields for the reply.
        """
        principal = await self._verify_refreshed(client, token)
        renewed = self._clients_sharing_token(client)
        for each in renewed:
            each.principal = principal
            each.warned = False
            self.registry.renew(each.connection_id, principal.expires_at)
            self._schedule_expiry(each)
        fields: Reply = {}
        for each in renewed:
            # It may have disconnected while another one was served.
            if self._clients.get(each.connection_id) is each:
                ended = await self.namespaces[each.namespace].end_forbidden(each)
                fields = ended if each is client else fields
        return principal, fields

    def _clients_sharing_token(self, client: JoinedClient) -> list[JoinedClient]:
        ids = (sid for sid in client.link.sids.values() if sid is not None)
        joined = [self._clients[each] for each in ids if each in self._clients]
        before = client.principal
        return [each for each in joined if each.principal.has_rights_of(before)]

    async def _verify_refreshed(self, client: JoinedClient, token: str) -> Principal:
        request = auth_request(client.namespace, client.link, {"token": token})
        principal = await self.verifier.verify_client(token, request)
        assert principal is not None  # only without a token
        if (principal.org, principal.user_id) != (client.principal.org, client.principal.user_id):
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, "the token belongs to another user")
        if self.clock.time() >= principal.expires_at + self.config.expiry_grace_seconds:
            # The leeway may be longer: the client would be sent away at once.
            raise AccessError(ErrorCode.AUTH_EXPIRED, "the token has expired")
        return principal

    def welcome_frame(self, client: JoinedClient, session_id: str | None) -> bytes:
        """The frame of the `welcome` event."""
        body: dict[str, object] = {
            "connection_id": client.connection_id,
            "user_id": client.principal.user_id,
            "org": client.principal.org,
            "server_time": int(self.clock.time() * 1000),
            "ping_interval_ms": self.config.ping_interval_ms,
            "resume_window_ms": self.config.resume_window_ms,
            "reconnect_spread_ms": reconnect_spread_ms(len(self.registry)),
        }
        if session_id is not None:
            body["session_id"] = session_id
        return client.link.event_frame(client.namespace, "welcome", dumps(body))

    def tick(self) -> None:
        """Send `token_expiring` ahead of expiry, and disconnect clients with an expired token."""
        for connection_id in self._expiries.pop_due(self.clock.monotonic()):
            client = self._clients.get(connection_id)
            if client is None:
                # Disconnected in this loop, through its other namespace.
                continue
            remaining_seconds = client.principal.expires_at - self.clock.time()
            if remaining_seconds + self.config.expiry_grace_seconds <= 0:
                client.link.disconnect(
                    AccessError(
                        ErrorCode.AUTH_EXPIRED, "the token has expired: reconnect with a new token"
                    ),
                    reconnect=True,
                )
                continue
            if remaining_seconds <= self.config.expiring_notice_seconds and not client.warned:
                client.warned = True
                body: dict[str, object] = {"expires_in_ms": max(0, int(remaining_seconds * 1000))}
                frame = client.link.event_frame(client.namespace, "token_expiring", dumps(body))
                client.link.write(frame)
            self._schedule_expiry(client)

    def _schedule_expiry(self, client: JoinedClient) -> None:
        remaining_seconds = client.principal.expires_at - self.clock.time()
        if remaining_seconds == float("inf"):
            return
        wait_seconds = remaining_seconds - self.config.expiring_notice_seconds
        if client.warned:
            wait_seconds = remaining_seconds + self.config.expiry_grace_seconds
        self._expiries.set(client.connection_id, self.clock.monotonic() + max(0.0, wait_seconds))
