"""A namespace of python-socketio whose every event goes through the pipeline."""

import asyncio
from typing import Any, cast

import socketio

from client_sdk.contract import ConnectAuth, RefreshToken
from server.access import Principal
from server.core.errors import LimitError
from server.core.recovery.tickets import Ticket, Tickets
from server.core.wire.frames import text_frame
from server.core.wire.packets import connect_packet
from server.sockets import guards
from server.sockets.clients import Peer
from server.sockets.context import Floor
from server.sockets.pipeline import Call, Handler, Reply, Route, assemble
from server.sockets.recovery import Crossing
from server.transport import BROKE_PROTOCOL, SENT_AWAY, Accepted, Connection

# Whoever left by itself, was sent away, or broke the protocol has left for good; anything else is
# a cut.
_LEFT = socketio.AsyncServer.reason.CLIENT_DISCONNECT
_FINAL = frozenset((_LEFT, SENT_AWAY, BROKE_PROTOCOL))
_GIVING_BACK_SECONDS = 0.1


class FloorNamespace(socketio.AsyncNamespace):  # type: ignore[misc]
    """Routes events by an explicit table; a method's name never makes it callable."""

    def __init__(
        self,
        namespace: str,
        floor: Floor,
        tickets: Tickets,
        routes: dict[str, Route],
        *,
        anonymous_allowed: bool,
        crossing: Crossing | None = None,
    ) -> None:
        super().__init__(namespace)
        self._floor = floor
        self._tickets = tickets
        # Where connections of this namespace may be had back on other nodes.
        self._crossing = crossing
        # How many were had back that had been cut off.
        self.recovered = 0
        self._routes = {
            "refresh_token": Route(RefreshToken, self._refresh_token),
            **routes,
        }
        clock = floor.clock
        self._call: Handler = assemble(
            [
                guards.errors(),
                guards.metrics(floor.counters, clock, self._routes),
                guards.authentication(
                    floor.verifier,
                    clock,
                    anonymous_allowed=anonymous_allowed,
                    grace_seconds=floor.config.expiry_grace_seconds,
                ),
                guards.rate_limit(floor.event_limits, clock),
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
            await self._cut_off(connection_id, args[1])
            return None
        if event == "connect":
            link = cast(Connection, args[1])
            reply = await self._call(Call(self.namespace, event, connection_id, link, (args[2],)))
            return reply["accepted"]
        peer = self._floor.peer(connection_id)
        return await self._call(
            Call(self.namespace, event, connection_id, peer.link, args[1:], peer)
        )

    async def joined(self, peer: Peer, session_id: str | None, *, numbered: bool) -> bytes:
        """A client has joined; the frames to send it after the welcome. For subclasses."""
        return b""

    async def left(self, connection_id: str, *, deliberate: bool) -> None:
        """A client has left, because it wanted to or was cut off; for subclasses."""

    def parked(self, connection_id: str) -> None:
        """A client was cut off and may be back; nothing of its may be let go. For subclasses."""

    def goes_on(self, connection_id: str, principal: Principal, session_id: str | None) -> bool:
        """Whether who is back wants to be where it was; for subclasses."""
        return True

    def resumed(self, peer: Peer, offset: str | None, first: bytes) -> bool:
        """It is back, and has to get these frames and then what it missed; for subclasses.

        False, and nothing was sent, where it cannot have that.
        """
        return False

    def greeting(self, peer: Peer) -> bytes:
        """The frames that every client is sent that has come, or come back; for subclasses."""
        return b""

    def session_of(self, peer: Peer, session_id: str | None) -> str | None:
        """The session that a client is told it is in, after it has come back; for subclasses."""
        return session_id

    async def sweep(self) -> None:
        """Let go of those who did not come back in time."""
        for connection_id in self._tickets.due(self._floor.clock.monotonic()):
            await self._give_up(connection_id)
        if self._crossing is not None:
            await self._crossing.tidy()

    def acknowledged(self, connection_id: str, identifier: int) -> bool:
        """A client acknowledges an event; False where it was not asked to. For subclasses."""
        return False

    def admit(self, principal: Principal, auth: ConnectAuth) -> str | None:
        """Judge what a client wants at connect; the session that it is to be in, if any."""
        return None

    async def _handle(self, call: Call) -> Reply:
        if call.connecting:
            return await self._connect(call)
        return await self._routes[call.event].handle(call)

    async def _connect(self, call: Call) -> Reply:
        principal, auth = call.known, call.request
        assert isinstance(auth, ConnectAuth)
        session_id = self.admit(principal, auth)
        numbered = auth.recovery and self._tickets.window_seconds > 0 and not principal.anonymous
        link = call.link
        others = [each for each in link.numbered if each != self.namespace]
        link.numbered = (*others, self.namespace) if numbered else tuple(others)
        pid = auth.pid if numbered else None
        brought = False
        if pid is not None and self._find_ticket(pid, principal) is None:
            # First of all: a connection that is half open still has a place of the user's, here or
            # on another node.
            brought = await self._bring(call, principal, auth)
        await self._claim(link, principal, patient=brought)
        try:
            accepted = None
            if pid is not None:
                accepted = await self._take_back(call, principal, auth, session_id)
            if accepted is None:
                accepted = await self._let_in(call, principal, auth, session_id, numbered=numbered)
        finally:
            self._floor.unclaim(link, principal)
        return {"accepted": accepted}

    async def _let_in(
        self,
        call: Call,
        principal: Principal,
        auth: ConnectAuth,
        session_id: str | None,
        *,
        numbered: bool,
    ) -> Accepted:
        peer = self._floor.join(call, principal, session_id)
        connection_id = peer.connection_id
        try:
            more = await self.joined(peer, session_id, numbered=numbered)
        except BaseException:
            # It was not let in after all: nothing of it may stay.
            await self.left(connection_id, deliberate=True)
            self._floor.leave(connection_id)
            raise
        pid = None
        if numbered:
            pid = self._tickets.issue(connection_id, principal.user, auth.offset)
        welcome = self._floor.welcome(peer, session_id)
        frames = self._connected(connection_id, pid) + welcome + more + self.greeting(peer)
        return Accepted(frames, connection_id)

    def _find_ticket(self, pid: str, principal: Principal) -> Ticket | None:
        """What a client comes back with; where it is still in, it is not any more."""
        ticket = self._tickets.find(pid, principal.user)
        if ticket is not None:
            self._floor.end_half_open(ticket.connection_id)
        return ticket

    async def _bring(self, call: Call, principal: Principal, auth: ConnectAuth) -> bool:
        """Have it here, if another node waits for it; who is waited for here may have to go."""
        # Once: a namespace can be left and joined without end, and each time would cost others.
        if self._crossing is None or call.link.crossed:
            return False
        call.link.crossed = True
        brought = await self._crossing.bring(call.link, principal, auth)
        await self._make_room()
        return brought

    async def _claim(self, link: Connection, principal: Principal, *, patient: bool) -> None:
        """Count it for its user; `patient`, a place of theirs is being given back elsewhere."""
        try:
            await self._floor.claim(link, principal)
        except LimitError:
            if not patient:
                raise
            # That is told by another way than what was brought, and may come a moment later.
            await asyncio.sleep(_GIVING_BACK_SECONDS)
            await self._floor.claim(link, principal)

    async def _take_back(
        self, call: Call, principal: Principal, auth: ConnectAuth, session_id: str | None
    ) -> Accepted | None:
        """Let somebody go on who was cut off; None where that cannot be."""
        assert auth.pid is not None
        # Once more: others may have come back with it while this one was counted.
        ticket = self._find_ticket(auth.pid, principal)
        if ticket is None:
            return None
        now = self._floor.clock.monotonic()
        connection_id = ticket.connection_id
        if ticket.until is None or ticket.until <= now:
            return None
        if not self.goes_on(connection_id, principal, session_id):
            await self._give_up(connection_id)
            return None
        own_id, call.connection_id = call.connection_id, connection_id
        peer = self._floor.join(call, principal, session_id)
        # Before what it missed: events that come before CONNECT are held by the stock JavaScript
        # client, also while it is cut off again, and then it has them twice.
        first = self._connected(connection_id, ticket.secret)
        resumed = False
        try:
            # All in one: a handler of `connect` may look for what was missed at once.
            call.link.gather()
            resumed = self.resumed(peer, ticket.seen(auth.offset), first)
        finally:
            if not resumed:
                self._floor.leave(connection_id)
                await self._give_up(connection_id)
                call.connection_id = own_id
        if not resumed:
            return None
        self._tickets.resume(connection_id)
        self.recovered += 1
        welcome = self._floor.welcome(peer, self.session_of(peer, session_id))
        return Accepted(welcome + self.greeting(peer), connection_id)

    def _connected(self, connection_id: str, pid: str | None) -> bytes:
        return text_frame(connect_packet(self.namespace, connection_id, pid))

    async def _cut_off(self, connection_id: str, reason: str) -> None:
        self._floor.leave(connection_id)
        now = self._floor.clock.monotonic()
        if reason in _FINAL or not self._tickets.park(connection_id, now):
            self._forget(connection_id)
            await self.left(connection_id, deliberate=reason in (_LEFT, SENT_AWAY))
            return
        self.parked(connection_id)
        await self._make_room()

    async def _make_room(self) -> None:
        for surplus in self._tickets.surplus():
            await self._give_up(surplus)

    async def _give_up(self, connection_id: str) -> None:
        self._forget(connection_id)
        await self.left(connection_id, deliberate=False)

    def _forget(self, connection_id: str) -> None:
        ticket = self._tickets.forget(connection_id)
        if ticket is not None and self._crossing is not None:
            self._crossing.forget(ticket)

    async def _refresh_token(self, call: Call) -> Reply:
        request = call.request
        assert isinstance(request, RefreshToken)
        assert call.peer is not None
        principal = await self._floor.refresh(call.peer, request.token)
        return {"ok": True, "expires_at": int(principal.expires_at * 1000)}
