"""The `/session` namespace: shared sessions and user notices."""

from collections.abc import Awaitable

from client_sdk.contract import (
    SESSION_NAMESPACE,
    CloseSession,
    ConnectAuth,
    FetchHistory,
    Join,
    Kick,
    Leave,
    ListParticipants,
    Send,
    Signal,
)
from server.access import Principal
from server.services import (
    Notifications,
    PendingNotices,
    Recovery,
    SessionMessages,
    SessionsService,
)
from server.sockets.clients import JoinedClient
from server.sockets.context import NamespaceContext
from server.sockets.namespace import GuardedNamespace
from server.sockets.pipeline import Call, Reply, Route
from server.transport import OrderKeys


class SessionNamespace(GuardedNamespace):
    """Events of `/session`."""

    def __init__(
        self,
        context: NamespaceContext,
        recovery: Recovery,
        sessions: SessionsService,
        messages: SessionMessages,
        notifications: Notifications,
    ) -> None:
        super().__init__(
            SESSION_NAMESPACE,
            context,
            recovery,
            {
                "join": Route(Join, self._join),
                "leave": Route(Leave, self._leave),
                "send": Route(Send, self._send, echoed=True, ordered_by=_session),
                "signal": Route(Signal, self._signal, ordered_by=_session),
                "history": Route(FetchHistory, self._history, ordered_by=_session),
                "participants": Route(ListParticipants, self._participants, ordered_by=_session),
                "kick": Route(Kick, self._kick),
                "close": Route(CloseSession, self._close),
            },
            anonymous_allowed=False,
        )
        self._sessions = sessions
        self._messages = messages
        self._notifications = notifications

    def authorize(self, principal: Principal, auth: ConnectAuth) -> str | None:
        if auth.session_id is not None:
            self._sessions.authorize(principal, auth.session_id)
        return auth.session_id

    async def attach_client(
        self, client: JoinedClient, session_id: str | None, *, numbered: bool
    ) -> None:
        self._sessions.add_connection(
            client.connection_id, client.link, numbered=numbered, initial_session=session_id
        )
        if session_id is not None:
            await self._sessions.join(client.connection_id, client.principal, session_id)

    def read_pending(self, principal: Principal) -> PendingNotices:
        return self._notifications.read_pending(principal.user)

    def greeting_frames(
        self,
        client: JoinedClient,
        session_id: str | None,
        pending: PendingNotices | None,
        *,
        resumed: bool,
    ) -> bytes:
        connection_id, org = client.connection_id, client.principal.org
        # A resumed client may have left the session before it disconnected.
        if session_id is not None and not self._sessions.is_member(connection_id, org, session_id):
            session_id = None
        welcome = super().greeting_frames(client, session_id, pending, resumed=resumed)
        if pending is None:
            return welcome
        return welcome + self._notifications.pending_frames(connection_id, pending, resumed=resumed)

    async def end_forbidden(self, client: JoinedClient) -> Reply:
        now_ms = int(self._context.clock.time() * 1000)
        await self._sessions.end_forbidden(client.connection_id, client.principal, now_ms)
        return {}

    def acknowledge(self, connection_id: str, ack_id: int) -> bool:
        return self._notifications.acknowledge(connection_id, ack_id)

    async def _join(self, call: Call, request: Join) -> Reply:
        principal = call.caller
        return await self._sessions.join(
            call.connection_id,
            principal,
            request.session_id,
            since=request.since,
            metadata=request.metadata,
        )

    async def _leave(self, call: Call, request: Leave) -> Reply:
        return await self._sessions.leave(call.connection_id, call.caller, request.session_id)

    def _send(self, call: Call, request: Send) -> Awaitable[Reply]:
        # Passed on without a coroutine of its own: it is what clients do most.
        return self._messages.send(
            call.connection_id, call.caller, request.session_id, request.data, request.id
        )

    async def _signal(self, call: Call, request: Signal) -> Reply:
        return await self._messages.signal(
            call.connection_id, call.caller, request.session_id, request.data
        )

    async def _history(self, call: Call, request: FetchHistory) -> Reply:
        return await self._messages.history(
            call.connection_id,
            call.caller,
            request.session_id,
            request.before_seq,
            request.limit,
        )

    async def _participants(self, call: Call, request: ListParticipants) -> Reply:
        return await self._sessions.participants(call.caller, request.session_id)

    async def _kick(self, call: Call, request: Kick) -> Reply:
        return await self._sessions.kick(call.caller, request.session_id, request.user_id)

    async def _close(self, call: Call, request: CloseSession) -> Reply:
        return await self._sessions.close(call.caller, request.session_id)


def _session(request: Send | Signal) -> OrderKeys:
    return frozenset((request.session_id,))
