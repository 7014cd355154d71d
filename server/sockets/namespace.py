"""The base of both namespaces: every connect and event passes the guard pipeline."""

import asyncio
from typing import Any, cast

import socketio

from client_sdk.contract import ConnectAuth, RefreshToken
from server.access import Principal
from server.core.errors import LimitError
from server.core.limits.events import event_cost
from server.core.recovery.tickets import ResumeTicket, ResumeTickets
from server.core.wire.frames import text_frame
from server.core.wire.packets import RawPacket, connect_packet
from server.sockets import guards
from server.sockets.clients import JoinedClient
from server.sockets.context import NamespaceContext
from server.sockets.pipeline import Call, Handler, Reply, Route, assemble
from server.sockets.recovery import RemoteRecovery
from server.transport import PROTOCOL_ERROR, SERVER_DISCONNECT, Accepted, Connection

# After these reasons a connection cannot be resumed; all others are connection losses.
_CLIENT_DISCONNECT = socketio.AsyncServer.reason.CLIENT_DISCONNECT
_FINAL_REASONS = frozenset((_CLIENT_DISCONNECT, SERVER_DISCONNECT, PROTOCOL_ERROR))
_RETRY_SECONDS = 0.1


class GuardedNamespace(socketio.AsyncNamespace):  # type: ignore[misc]
    """A python-socketio namespace with an explicit routing table.

    Clients can call only the events in the table, never a method by its name. Subclasses override
    the `*_client` hooks.
    """

    def __init__(
        self,
        namespace: str,
        context: NamespaceContext,
        tickets: ResumeTickets,
        routes: dict[str, Route],
        *,
        anonymous_allowed: bool,
        remote_recovery: RemoteRecovery | None = None,
    ) -> None:
        super().__init__(namespace)
        self._context = context
        self._tickets = tickets
        # None if connections of this namespace cannot resume on other nodes.
        self._remote_recovery = remote_recovery
        # Resumed connections.
        self.recovered = 0
        self._routes = {
            "refresh_token": Route(RefreshToken, self._refresh_token),
            **routes,
        }
        clock = context.clock
        self._call: Handler = assemble(
            [
                guards.errors(context.refusals),
                guards.metrics(context.counters, clock, self._routes),
                guards.authentication(
                    context.verifier,
                    clock,
                    anonymous_allowed=anonymous_allowed,
                    grace_seconds=context.config.expiry_grace_seconds,
                ),
                guards.validation(self._routes, Route(ConnectAuth, self._connect)),
                guards.rate_limit(context.event_limits),
            ],
            self._handle,
        )

    async def trigger_event(self, event: str, *args: Any) -> Any:
        """Handle a connect, an event or a disconnect from the Socket.IO server.

        The packet decoder refuses client events with the reserved names "connect" and
        "disconnect" (Socket.IO protocol, EVENT).
        """
        connection_id = args[0]
        if event == "disconnect":
            await self._on_disconnect(connection_id, args[1])
            return None
        if event == "connect":
            link = cast(Connection, args[1])
            reply = await self._call(Call(self.namespace, event, connection_id, link, (args[2],)))
            return reply["accepted"]
        client = self._context.client(connection_id)
        return await self._call(
            Call(self.namespace, event, connection_id, client.link, args[1:], client)
        )

    def charge(self, connection_id: str, packet: RawPacket) -> LimitError | None:
        """Count a received event; the error if it is over the rate limit."""
        refusal = self._context.charge(connection_id, event_cost(len(packet.body)))
        if refusal is not None:
            name = packet.event_name
            event = name if name in self._routes else guards.UNKNOWN_EVENT
            self._context.counters.count_event(self.namespace, event, refusal.code.value, 0.0)
        return refusal

    async def attach_client(
        self, client: JoinedClient, session_id: str | None, *, numbered: bool
    ) -> bytes:
        """Set up a joined client; returns the frames to send after the welcome."""
        return b""

    async def detach_client(self, connection_id: str, *, deliberate: bool) -> None:
        """Remove all state of a client; `deliberate` if it did not lose its connection."""

    def park_client(self, connection_id: str) -> None:
        """Keep all state of a disconnected client until it resumes or is detached."""

    def can_resume(self, connection_id: str, principal: Principal, session_id: str | None) -> bool:
        """Check that the connect request matches the parked connection."""
        return True

    def resume_client(self, client: JoinedClient, offset: str | None, first_frames: bytes) -> bool:
        """Send a resuming client `first_frames`, then what it missed.

        Returns False, and sends nothing, if missed events are lost.
        """
        return False

    async def end_forbidden(self, client: JoinedClient) -> Reply:
        """End what a refreshed token no longer allows; returns fields for the reply."""
        return {}

    def greeting_frames(self, client: JoinedClient) -> bytes:
        """The frames to send after the welcome of a joined or resumed client."""
        return b""

    def resumed_session(self, client: JoinedClient, session_id: str | None) -> str | None:
        """The session in the welcome of a resumed client, None if there is none."""
        return session_id

    async def sweep(self) -> None:
        """Remove parked connections whose resume window has ended."""
        for connection_id in self._tickets.expired(self._context.clock.monotonic()):
            await self._evict(connection_id)
        if self._remote_recovery is not None:
            await self._remote_recovery.release_idle()

    def acknowledge(self, connection_id: str, ack_id: int) -> bool:
        """Handle an ACK packet; returns False if no event has this ack id."""
        return False

    def authorize(self, principal: Principal, auth: ConnectAuth) -> str | None:
        """Authorize a connect request; returns the session to join, None if there is none."""
        return None

    async def _handle(self, call: Call) -> Reply:
        if call.is_connect:
            return await self._connect(call)
        return await self._routes[call.event].handle(call)

    async def _connect(self, call: Call) -> Reply:
        principal, auth = call.caller, call.request
        assert isinstance(auth, ConnectAuth)
        session_id = self.authorize(principal, auth)
        numbered = auth.recovery and self._tickets.window_seconds > 0 and not principal.anonymous
        link = call.link
        others = [each for each in link.offset_namespaces if each != self.namespace]
        link.offset_namespaces = (*others, self.namespace) if numbered else tuple(others)
        pid = auth.pid if numbered else None
        fetched = False
        if pid is not None and self._find_ticket(pid, principal) is None:
            # Before counting this connection: a half-open one still counts for its user, on this
            # node or another.
            fetched = await self._fetch_remote(call, principal, auth)
        await self._reserve(link, principal, retry=fetched)
        try:
            accepted = None
            if pid is not None:
                accepted = await self._resume(call, principal, auth, session_id)
            if accepted is None:
                accepted = await self._join_namespace(
                    call, principal, auth, session_id, numbered=numbered
                )
        finally:
            self._context.release(link, principal)
        return {"accepted": accepted}

    async def _join_namespace(
        self,
        call: Call,
        principal: Principal,
        auth: ConnectAuth,
        session_id: str | None,
        *,
        numbered: bool,
    ) -> Accepted:
        client = self._context.add_client(call, principal, session_id)
        connection_id = client.connection_id
        try:
            frames_after_welcome = await self.attach_client(client, session_id, numbered=numbered)
        except BaseException:
            # The join has failed: leave no state behind.
            await self.detach_client(connection_id, deliberate=True)
            self._context.remove_client(connection_id)
            raise
        pid = None
        if numbered:
            pid = self._tickets.issue(connection_id, principal.user, auth.offset)
        welcome = self._context.welcome_frame(client, session_id)
        frames = (
            self._connect_frame(connection_id, pid)
            + welcome
            + frames_after_welcome
            + self.greeting_frames(client)
        )
        return Accepted(frames, connection_id)

    def _find_ticket(self, pid: str, principal: Principal) -> ResumeTicket | None:
        """The user's ticket with this pid; aborts its connection if that is half open."""
        ticket = self._tickets.find(pid, principal.user)
        if ticket is not None:
            self._context.abort_half_open(ticket.connection_id)
        return ticket

    async def _fetch_remote(self, call: Call, principal: Principal, auth: ConnectAuth) -> bool:
        """Fetch the parked connection from another node; may evict the oldest one parked here."""
        # Once a connection: rejoining the namespace in a loop must not load other nodes.
        if self._remote_recovery is None or call.link.tried_remote_recovery:
            return False
        call.link.tried_remote_recovery = True
        fetched = await self._remote_recovery.fetch(call.link, principal, auth)
        await self._evict_surplus()
        return fetched

    async def _reserve(self, link: Connection, principal: Principal, *, retry: bool) -> None:
        """Count the connection for its user; `retry` if another node is releasing one."""
        try:
            await self._context.reserve(link, principal)
        except LimitError:
            if not retry:
                raise
            # The release takes another path than the fetched state, and may arrive later.
            await asyncio.sleep(_RETRY_SECONDS)
            await self._context.reserve(link, principal)

    async def _resume(
        self, call: Call, principal: Principal, auth: ConnectAuth, session_id: str | None
    ) -> Accepted | None:
        """Resume a parked connection; None if that is not possible."""
        assert auth.pid is not None
        # Again after the await: another connection may have used the ticket.
        ticket = self._find_ticket(auth.pid, principal)
        if ticket is None:
            return None
        now = self._context.clock.monotonic()
        connection_id = ticket.connection_id
        if ticket.expires_at is None or ticket.expires_at <= now:
            return None
        if not self.can_resume(connection_id, principal, session_id):
            await self._evict(connection_id)
            return None
        new_id, call.connection_id = call.connection_id, connection_id
        client = self._context.add_client(call, principal, session_id)
        # CONNECT precedes the missed events: socket.io-client buffers events that arrive before
        # it, even across another connection loss, and would then deliver them twice.
        first_frames = self._connect_frame(connection_id, ticket.pid)
        resumed = False
        try:
            # One write: a `connect` handler of the client may expect missed events at once.
            call.link.cork()
            resumed = self.resume_client(client, ticket.seen_offset(auth.offset), first_frames)
        finally:
            if not resumed:
                self._context.remove_client(connection_id)
                await self._evict(connection_id)
                call.connection_id = new_id
        if not resumed:
            return None
        self._tickets.resume(connection_id)
        self.recovered += 1
        welcome = self._context.welcome_frame(client, self.resumed_session(client, session_id))
        return Accepted(welcome + self.greeting_frames(client), connection_id)

    def _connect_frame(self, connection_id: str, pid: str | None) -> bytes:
        return text_frame(connect_packet(self.namespace, connection_id, pid))

    async def _on_disconnect(self, connection_id: str, reason: str) -> None:
        self._context.remove_client(connection_id)
        now = self._context.clock.monotonic()
        if reason in _FINAL_REASONS or not self._tickets.park(connection_id, now):
            self._forget_ticket(connection_id)
            await self.detach_client(
                connection_id, deliberate=reason in (_CLIENT_DISCONNECT, SERVER_DISCONNECT)
            )
            return
        self.park_client(connection_id)
        await self._evict_surplus()

    async def _evict_surplus(self) -> None:
        for evicted in self._tickets.pop_evicted():
            await self._evict(evicted)

    async def _evict(self, connection_id: str) -> None:
        self._forget_ticket(connection_id)
        await self.detach_client(connection_id, deliberate=False)

    def _forget_ticket(self, connection_id: str) -> None:
        ticket = self._tickets.remove(connection_id)
        if ticket is not None and self._remote_recovery is not None:
            self._remote_recovery.forget(ticket)

    async def _refresh_token(self, call: Call) -> Reply:
        request = call.request
        assert isinstance(request, RefreshToken)
        assert call.client is not None
        client = call.client
        principal = await self._context.refresh_token(client, request.token)
        ended: Reply = {}
        if self._context.find_client(client.connection_id) is client:
            ended = await self.end_forbidden(client)
        return {"ok": True, "expires_at": int(principal.expires_at * 1000), **ended}
