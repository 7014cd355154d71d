"""The `/session` namespace: shared sessions, and notices for their users."""

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
from server.core.recovery.tickets import Tickets
from server.services import Notifications, SessionsService, Talking
from server.sockets.clients import Peer
from server.sockets.context import Floor
from server.sockets.namespace import FloorNamespace
from server.sockets.pipeline import Call, Reply, Route


class SessionNamespace(FloorNamespace):
    """Events of `/session`."""

    def __init__(
        self,
        floor: Floor,
        tickets: Tickets,
        sessions: SessionsService,
        talking: Talking,
        notifications: Notifications,
    ) -> None:
        super().__init__(
            SESSION_NAMESPACE,
            floor,
            tickets,
            {
                "join": Route(Join, self._join),
                "leave": Route(Leave, self._leave),
                "send": Route(Send, self._send),
                "signal": Route(Signal, self._signal),
                "history": Route(FetchHistory, self._history),
                "participants": Route(ListParticipants, self._participants),
                "kick": Route(Kick, self._kick),
                "close": Route(CloseSession, self._close),
            },
            anonymous_allowed=False,
        )
        self._sessions = sessions
        self._talking = talking
        self._notifications = notifications

    def admit(self, principal: Principal, auth: ConnectAuth) -> str | None:
        if auth.session_id is not None:
            self._sessions.judge(principal, auth.session_id)
        return auth.session_id

    async def joined(self, peer: Peer, session_id: str | None, *, numbered: bool) -> bytes:
        self._sessions.enter(peer.connection_id, peer.link, numbered=numbered, named=session_id)
        if session_id is not None:
            await self._sessions.join(peer.connection_id, peer.principal, session_id)
        return b""

    def greeting(self, peer: Peer) -> bytes:
        return self._notifications.greet(peer.connection_id, *peer.principal.user)

    def parked(self, connection_id: str) -> None:
        self._notifications.forget(connection_id)
        self._sessions.park(connection_id)

    def goes_on(self, connection_id: str, principal: Principal, session_id: str | None) -> bool:
        return self._sessions.goes_on(connection_id, principal, session_id)

    def resumed(self, peer: Peer, offset: str | None, first: bytes) -> bool:
        return self._sessions.resume(peer.connection_id, peer.principal, peer.link, offset, first)

    def session_of(self, peer: Peer, session_id: str | None) -> str | None:
        # It may have gone out of it by itself, before it was cut off.
        if session_id is None:
            return None
        org = peer.principal.org
        is_in = self._sessions.is_in(peer.connection_id, org, session_id)
        return session_id if is_in else None

    async def left(self, connection_id: str, *, deliberate: bool) -> None:
        self._notifications.forget(connection_id)
        await self._sessions.exit(connection_id, deliberate=deliberate)

    def acknowledged(self, connection_id: str, identifier: int) -> bool:
        return self._notifications.acknowledged(connection_id, identifier)

    async def _join(self, call: Call) -> Reply:
        request, principal = call.request, call.known
        assert isinstance(request, Join)
        return await self._sessions.join(
            call.connection_id,
            principal,
            request.session_id,
            since=request.since,
            metadata=request.metadata,
        )

    async def _leave(self, call: Call) -> Reply:
        request = call.request
        assert isinstance(request, Leave)
        return await self._sessions.leave(call.connection_id, call.known, request.session_id)

    async def _send(self, call: Call) -> Reply:
        request = call.request
        assert isinstance(request, Send)
        return await self._talking.send(
            call.connection_id, call.known, request.session_id, request.data, request.id
        )

    async def _signal(self, call: Call) -> Reply:
        request = call.request
        assert isinstance(request, Signal)
        return await self._talking.signal(
            call.connection_id, call.known, request.session_id, request.data
        )

    async def _history(self, call: Call) -> Reply:
        request = call.request
        assert isinstance(request, FetchHistory)
        return await self._talking.history(
            call.connection_id,
            call.known,
            request.session_id,
            request.before_seq,
            request.limit,
        )

    async def _participants(self, call: Call) -> Reply:
        request = call.request
        assert isinstance(request, ListParticipants)
        return await self._sessions.participants(call.known, request.session_id)

    async def _kick(self, call: Call) -> Reply:
        request = call.request
        assert isinstance(request, Kick)
        return await self._sessions.kick(call.known, request.session_id, request.user_id)

    async def _close(self, call: Call) -> Reply:
        request = call.request
        assert isinstance(request, CloseSession)
        return await self._sessions.close(call.known, request.session_id)
