"""The base of both namespaces: every connect and event passes the guard pipeline."""

import asyncio
import functools
from collections.abc import Awaitable
from typing import Any, cast

from client_sdk.contract import ConnectAuth, RefreshToken
from server.access import Principal
from server.core.disconnects import DisconnectReason
from server.core.errors import LimitError
from server.core.limits.events import event_cost
from server.core.wire.frames import text_frame
from server.core.wire.packets import RawPacket, connect_packet
from server.services import PendingNotices, Recovery, ResumingClient
from server.sockets import guards
from server.sockets.clients import JoinedClient
from server.sockets.context import NamespaceContext
from server.sockets.pipeline import (
    AnyRoute,
    Call,
    Handler,
    Reply,
    Result,
    Route,
    Routes,
    assemble,
)
from server.transport import Accepted, Connection, NamespaceHandler

_RETRY_SECONDS = 0.1


class GuardedNamespace(NamespaceHandler):
    """A python-socketio namespace with an explicit routing table.

    Clients can call only the events in the table, never a method by its name.
    """

    def __init__(
        self,
        namespace: str,
        context: NamespaceContext,
        recovery: Recovery,
        routes: Routes,
        *,
        anonymous_allowed: bool,
    ) -> None:
        super().__init__(namespace)
        self._context = context
        self._recovery = recovery
        self._own_name = (namespace,)
        context.namespaces[namespace] = self
        self._routes: dict[str, AnyRoute] = {
            "refresh_token": Route(RefreshToken, self._refresh_token),
            **routes,
        }
        self._connect_route: AnyRoute = Route(ConnectAuth, self._connect)
        self._guards = guards.BuiltInGuards(
            namespace,
            self._routes,
            self._connect_route,
            verifier=context.verifier,
            limits=context.event_limits,
            counters=context.counters,
            refusals=context.refusals,
            clock=context.clock,
            anonymous_allowed=anonymous_allowed,
            grace_seconds=context.config.expiry_grace_seconds,
        )
        application = [guards.application(each) for each in context.guards]
        self._handle_connect: Handler = assemble(application, self._run_connect)
        self._handle_event: Handler = assemble(application, self._run_event)

    def trigger_event(self, event: str, *args: Any) -> Awaitable[Any]:
        """Handle a connect, an event or a disconnect from the Socket.IO server.

        The packet decoder refuses client events with the reserved names "connect" and
        "disconnect" (Socket.IO protocol, EVENT).
        """
        connection_id = args[0]
        if event == "disconnect":
            return self._on_disconnect(connection_id, args[1])
        if event == "connect":
            return self._on_connect(connection_id, cast(Connection, args[1]), args[2])
        client = self._context.client(connection_id)
        call = Call(self.namespace, event, connection_id, client.link, args[1:], client)
        return self._guards.on_event(call, self._handle_event)

    async def _on_connect(self, connection_id: str, link: Connection, auth: object) -> Accepted:
        call = Call(self.namespace, "connect", connection_id, link, (auth,))
        accepted = cast(Accepted, await self._guards.on_connect(call, self._handle_connect))
        resumed = accepted.connection_id != connection_id
        self._context.report_connected(accepted.connection_id, resumed=resumed)
        return accepted

    def charge(self, connection_id: str, packet: RawPacket) -> LimitError | None:
        """Count a received event; the error if it is over the rate limit."""
        refusal = self._context.charge(connection_id, event_cost(len(packet.body)))
        if refusal is not None:
            name = packet.event_name
            event = name if name in self._routes else guards.UNKNOWN_EVENT
            self._context.counters.count_event(self.namespace, event, refusal.code.value, 0.0)
        return refusal

    def failure_reply(self, event: str, failure: Exception) -> Reply:
        error = guards.internal_error(self.namespace, event, failure)
        return {"ok": False, "error": error.body()}

    def repeat_connect(self, connection_id: str) -> bytes:
        client = self._context.client(connection_id)
        record = self._context.registry.get(connection_id)
        assert record is not None  # it is joined
        pid = self._recovery.pid_of(self.namespace, connection_id)
        welcome = self._context.welcome_frame(client, record.session_id)
        return self._connect_frame(connection_id, pid) + welcome

    async def attach_client(
        self, client: JoinedClient, session_id: str | None, *, numbered: bool
    ) -> None:
        """Set up a joined client; if `numbered`, its events carry offsets for recovery."""

    def read_pending(self, principal: Principal) -> PendingNotices | None:
        """Begin to read the notices for a client that connects; None if there can be none."""
        return None

    def greeting_frames(
        self,
        client: JoinedClient,
        session_id: str | None,
        pending: PendingNotices | None,
        *,
        resumed: bool,
    ) -> bytes:
        """The first frames of a joined or resumed client: the welcome, and what follows it."""
        return self._context.welcome_frame(client, session_id)

    async def end_forbidden(self, client: JoinedClient) -> Reply:
        """End what a refreshed token no longer allows; returns fields for the reply."""
        return {}

    def echoes(self, event: str) -> bool:
        route = self._routes.get(event)
        return route is not None and route.echoed

    def authorize(self, principal: Principal, auth: ConnectAuth) -> str | None:
        """Authorize a connect request; returns the session to join, None if there is none."""
        return None

    def _run_connect(self, call: Call) -> Awaitable[Result]:
        return self._connect_route.handle(call, call.request)

    def _run_event(self, call: Call) -> Awaitable[Result]:
        route = self._routes[call.event]
        if route.ordered_by is None:
            earlier = call.link.order_last()
        else:
            earlier = call.link.order_by(functools.partial(route.ordered_by, call.request))
        if earlier is None:
            return route.handle(call, call.request)
        return self._run_after(earlier, route, call)

    async def _run_after(self, earlier: Awaitable[None], route: AnyRoute, call: Call) -> Result:
        await earlier
        return await route.handle(call, call.request)

    async def _connect(self, call: Call, auth: ConnectAuth) -> Accepted:
        principal, link = call.caller, call.link
        session_id = self.authorize(principal, auth)
        numbered = auth.recovery and self._recovery.is_offered(self.namespace, principal)
        others = tuple(each for each in link.offset_namespaces if each != self.namespace)
        own = self._own_name if numbered else ()
        # Most connections have one namespace, and share its tuple.
        link.offset_namespaces = (*others, *own) if others else own
        resuming = None
        if numbered and auth.pid is not None:
            resuming = ResumingClient(principal, link, auth.pid, auth.offset, session_id)
        # Before counting this connection: a half-open one still counts for its user, on this node
        # or another.
        fetched = resuming is not None and await self._fetch(link, resuming)
        # While the limits of the user are checked. What is posted from here on is added to them.
        pending = self.read_pending(principal)
        try:
            await self._reserve(link, principal, retry=fetched)
            try:
                await self._context.rule.check_connect(principal, self.namespace)
                if pending is not None:
                    await pending.wait()
                accepted = None
                if resuming is not None:
                    accepted = await self._try_resume(call, resuming, pending, fetched=fetched)
                return accepted or await self._join_namespace(
                    call, auth, session_id, pending, numbered=numbered
                )
            finally:
                self._context.release(link, principal)
        finally:
            if pending is not None:
                pending.close()

    async def _join_namespace(
        self,
        call: Call,
        auth: ConnectAuth,
        session_id: str | None,
        pending: PendingNotices | None,
        *,
        numbered: bool,
    ) -> Accepted:
        principal = call.caller
        client = self._context.add_client(call, principal, session_id)
        connection_id = client.connection_id
        try:
            await self.attach_client(client, session_id, numbered=numbered)
        except BaseException:
            # The join has failed: leave no state behind.
            try:
                await self._recovery.remove(self.namespace, connection_id, lost=False)
            finally:
                self._context.remove_client(connection_id)
            raise
        pid = None
        if numbered:
            pid = self._recovery.issue(self.namespace, connection_id, principal.user, auth.offset)
        first_frames = self._connect_frame(connection_id, pid)
        greeting = self.greeting_frames(client, session_id, pending, resumed=False)
        return Accepted(first_frames + greeting, connection_id)

    async def _fetch(self, link: Connection, resuming: ResumingClient) -> bool:
        """Fetch the parked connection from another node, unless it is here."""
        if self._recovery.find(self.namespace, resuming) is not None:
            return False
        # Once a connection: rejoining the namespace in a loop must not load other nodes.
        if self.namespace in link.fetched_namespaces:
            return False
        link.fetched_namespaces = (*link.fetched_namespaces, self.namespace)
        return await self._recovery.fetch(self.namespace, resuming)

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

    async def _try_resume(
        self,
        call: Call,
        resuming: ResumingClient,
        pending: PendingNotices | None,
        *,
        fetched: bool,
    ) -> Accepted | None:
        """Resume a parked connection, and count the outcome; None if that is not possible."""
        recovery, reason = self._recovery, "fetched" if fetched else "here"
        is_known = recovery.find(self.namespace, resuming) is not None
        await recovery.authorize(self.namespace, resuming)
        is_allowed = recovery.find(self.namespace, resuming) is not None
        accepted = await self._resume(call, resuming, pending)
        if accepted is None:
            reason = "messages_lost" if is_allowed else "forbidden" if is_known else "unknown"
        outcome = "new" if accepted is None else "resumed"
        self._context.counters.count("recovery.resumes", self.namespace, outcome, reason)
        return accepted

    async def _resume(
        self, call: Call, resuming: ResumingClient, pending: PendingNotices | None
    ) -> Accepted | None:
        """Resume a parked connection; None if that is not possible."""
        # Again after the await: another connection may have used the ticket.
        connection_id = self._recovery.find(self.namespace, resuming)
        if connection_id is None:
            return None
        new_id, call.connection_id = call.connection_id, connection_id
        client = self._context.add_client(call, resuming.principal, resuming.session_id)
        # CONNECT precedes the missed events: socket.io-client buffers events that arrive before
        # it, even across another connection loss, and would then deliver them twice.
        first_frames = self._connect_frame(connection_id, resuming.pid)
        resumed = False
        try:
            # One write: a `connect` handler of the client may expect missed events at once.
            call.link.cork()
            resumed = await self._recovery.resume(
                self.namespace, connection_id, resuming, first_frames
            )
        finally:
            if not resumed:
                self._context.remove_client(connection_id)
                call.connection_id = new_id
        if not resumed:
            return None
        greeting = self.greeting_frames(client, resuming.session_id, pending, resumed=True)
        return Accepted(greeting, connection_id)

    def _connect_frame(self, connection_id: str, pid: str | None) -> bytes:
        return text_frame(connect_packet(self.namespace, connection_id, pid))

    async def _on_disconnect(self, connection_id: str, reason: DisconnectReason) -> None:
        self._context.report_disconnected(connection_id, reason)
        self._context.remove_client(connection_id)
        await self._recovery.park(self.namespace, connection_id, reason)

    async def _refresh_token(self, call: Call, request: RefreshToken) -> Reply:
        assert call.client is not None
        principal, ended = await self._context.refresh_token(call.client, request.token)
        return {"ok": True, "expires_at": int(principal.expires_at * 1000), **ended}
