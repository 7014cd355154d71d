"""A namespace of python-socketio whose every event goes through the pipeline."""

import asyncio
from typing import Any, cast

import socketio

from client_sdk.contract import ConnectAuth, RefreshToken
from server.access import Principal
from server.core.errors import LimitError
from server.core.recovery.tickets import ResumeTicket, ResumeTickets
from server.core.wire.frames import text_frame
from server.core.wire.packets import connect_packet
from server.sockets import guards
from server.sockets.clients import JoinedClient
from server.sockets.context import NamespaceContext
from server.sockets.pipeline import Call, Handler, Reply, Route, assemble
from server.sockets.recovery import RemoteRecovery
from server.transport import PROTOCOL_ERROR, SERVER_DISCONNECT, Accepted, Connection

# Whoever left by itself, was sent away, or broke the protocol has left for good; anything else is
# a cut.
_CLIENT_DISCONNECT = socketio.AsyncServer.reason.CLIENT_DISCONNECT
_FINAL_REASONS = frozenset((_CLIENT_DISCONNECT, SERVER_DISCONNECT, PROTOCOL_ERROR))
_RETRY_SECONDS = 0.1


class GuardedNamespace(socketio.AsyncNamespace):  # type: ignore[misc]
    """Routes events by an explicit table; a method's name never makes it callable."""

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
        # Where connections of this namespace may be had back on other nodes.
        self._remote_recovery = remote_recovery
        # How many were had back that had been cut off.
        self.recovered = 0
        self._routes = {
            "refresh_token": Route(RefreshToken, self._refresh_token),
            **routes,
        }
        clock = context.clock
        self._call: Handler = assemble(
            [
                guards.errors(),
                guards.metrics(context.counters, clock, self._routes),
                guards.authentication(
                    context.verifier,
                    clock,
                    anonymous_allowed=anonymous_allowed,
                    grace_seconds=context.config.expiry_grace_seconds,
                ),
                guards.rate_limit(context.event_limits, clock),
                guards.validation(self._routes, Route(ConnectAuth, self._connect)),
            ],
            self._handle,
        )

    async def trigger_event(self, event: str, *args: Any) -> Any:
        """Where the server hands over connects, events and disconnects.

        Clients cannot send events that are called "connect" or "disconnect": the decoder of
        packets refuses reserved names.
        """
        connection_id = args[0]
        if event == "disconnect":
            await self._disconnected(connection_id, args[1])
            return None
        if event == "connect":
            link = cast(Connection, args[1])
            reply = await self._call(Call(self.namespace, event, connection_id, link, (args[2],)))
            return reply["accepted"]
        peer = self._context.client(connection_id)
        return await self._call(
            Call(self.namespace, event, connection_id, peer.link, args[1:], peer)
        )

    async def attach_client(
        self, client: JoinedClient, session_id: str | None, *, numbered: bool
    ) -> bytes:
        """A client has joined; the frames to send it after the welcome. For subclasses."""
        return b""

    async def detach_client(self, connection_id: str, *, deliberate: bool) -> None:
        """A client has left, because it wanted to or was cut off; for subclasses."""

    def park_client(self, connection_id: str) -> None:
        """A client was cut off and may be back; nothing of its may be let go. For subclasses."""

    def can_resume(self, connection_id: str, principal: Principal, session_id: str | None) -> bool:
        """Whether who is back wants to be where it was; for subclasses."""
        return True

    def resume_client(self, client: JoinedClient, offset: str | None, first_frames: bytes) -> bool:
        """It is back, and has to get these frames and then what it missed; for subclasses.

        False, and nothing was sent, where it cannot have that.
        """
        return False

    def greeting_frames(self, client: JoinedClient) -> bytes:
        """The frames that every client is sent that has come, or come back; for subclasses."""
        return b""

    def resumed_session(self, client: JoinedClient, session_id: str | None) -> str | None:
        """The session that a client is told it is in, after it has come back; for subclasses."""
        return session_id

    async def sweep(self) -> None:
        """Let go of those who did not come back in time."""
        for connection_id in self._tickets.expired(self._context.clock.monotonic()):
            await self._evict(connection_id)
        if self._remote_recovery is not None:
            await self._remote_recovery.release_idle()

    def acknowledge(self, connection_id: str, identifier: int) -> bool:
        """A client acknowledges an event; False where it was not asked to. For subclasses."""
        return False

    def authorize(self, principal: Principal, auth: ConnectAuth) -> str | None:
        """Judge what a client wants at connect; the session that it is to be in, if any."""
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
        brought = False
        if pid is not None and self._find_ticket(pid, principal) is None:
            # First of all: a connection that is half open still has a place of the user's, here or
            # on another node.
            brought = await self._fetch_remote(call, principal, auth)
        await self._reserve(link, principal, retry=brought)
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
        peer = self._context.add_client(call, principal, session_id)
        connection_id = peer.connection_id
        try:
            more = await self.attach_client(peer, session_id, numbered=numbered)
        except BaseException:
            # It was not let in after all: nothing of it may stay.
            await self.detach_client(connection_id, deliberate=True)
            self._context.remove_client(connection_id)
            raise
        pid = None
        if numbered:
            pid = self._tickets.issue(connection_id, principal.user, auth.offset)
        welcome = self._context.welcome_frame(peer, session_id)
        frames = (
            self._connect_frame(connection_id, pid) + welcome + more + self.greeting_frames(peer)
        )
        return Accepted(frames, connection_id)

    def _find_ticket(self, pid: str, principal: Principal) -> ResumeTicket | None:
        """What a client comes back with; where it is still in, it is not any more."""
        ticket = self._tickets.find(pid, principal.user)
        if ticket is not None:
            self._context.abort_half_open(ticket.connection_id)
        return ticket

    async def _fetch_remote(self, call: Call, principal: Principal, auth: ConnectAuth) -> bool:
        """Have it here, if another node waits for it; who is waited for here may have to go."""
        # Once: a namespace can be left and joined without end, and each time would cost others.
        if self._remote_recovery is None or call.link.tried_remote_recovery:
            return False
        call.link.tried_remote_recovery = True
        brought = await self._remote_recovery.fetch(call.link, principal, auth)
        await self._evict_surplus()
        return brought

    async def _reserve(self, link: Connection, principal: Principal, *, retry: bool) -> None:
        """Count it for its user; `patient`, a place of theirs is being given back elsewhere."""
        try:
            await self._context.reserve(link, principal)
        except LimitError:
            if not retry:
                raise
            # That is told by another way than what was brought, and may come a moment later.
            await asyncio.sleep(_RETRY_SECONDS)
            await self._context.reserve(link, principal)

    async def _resume(
        self, call: Call, principal: Principal, auth: ConnectAuth, session_id: str | None
    ) -> Accepted | None:
        """Let somebody go on who was cut off; None where that cannot be."""
        assert auth.pid is not None
        # Once more: others may have come back with it while this one was counted.
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
        own_id, call.connection_id = call.connection_id, connection_id
        peer = self._context.add_client(call, principal, session_id)
        # Before what it missed: events that come before CONNECT are held by the stock JavaScript
        # client, also while it is cut off again, and then it has them twice.
        first = self._connect_frame(connection_id, ticket.pid)
        resumed = False
        try:
            # All in one: a handler of `connect` may look for what was missed at once.
            call.link.cork()
            resumed = self.resume_client(peer, ticket.seen_offset(auth.offset), first)
        finally:
            if not resumed:
                self._context.remove_client(connection_id)
                await self._evict(connection_id)
                call.connection_id = own_id
        if not resumed:
            return None
        self._tickets.resume(connection_id)
        self.recovered += 1
        welcome = self._context.welcome_frame(peer, self.resumed_session(peer, session_id))
        return Accepted(welcome + self.greeting_frames(peer), connection_id)

    def _connect_frame(self, connection_id: str, pid: str | None) -> bytes:
        return text_frame(connect_packet(self.namespace, connection_id, pid))

    async def _disconnected(self, connection_id: str, reason: str) -> None:
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
        for surplus in self._tickets.pop_evicted():
            await self._evict(surplus)

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
        principal = await self._context.refresh_token(call.client, request.token)
        return {"ok": True, "expires_at": int(principal.expires_at * 1000)}
