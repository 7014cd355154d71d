"""Parks and resumes the session memberships of connections."""

from server.access import Principal
from server.core.errors import FloorcastError
from server.core.recovery.connection_state import ConnectionState
from server.core.recovery.tickets import Owner
from server.delivery import Hub
from server.services.recovery import ResumingClient
from server.services.sessions.notifications import Notifications
from server.services.sessions.service import SessionsService


class SessionRecovery:
    """Implements `RecoverableState` for `/session`."""

    def __init__(self, sessions: SessionsService, notifications: Notifications, hub: Hub) -> None:
        self._sessions = sessions
        self._local_presence = sessions.local_presence
        self._notifications = notifications
        self._hub = hub

    def park(self, connection_id: str) -> None:
        self._notifications.forget(connection_id)
        self._local_presence.park(connection_id)

    async def is_allowed(self, connection_id: str, principal: Principal) -> bool:
        parked = self._local_presence.parked_sessions(connection_id)
        return await self._sessions.is_allowed(principal, parked)

    def resume(self, connection_id: str, client: ResumingClient, first_frames: bytes) -> bool:
        principal = client.principal
        parked = self._local_presence.parked_sessions(connection_id)
        known = {self._local_presence.initial_session(connection_id), *(key[1] for key in parked)}
        if client.session_id is not None and client.session_id not in known:
            return False
        try:
            for _, session_id in parked:
                self._sessions.authorize(principal, session_id)
        except FloorcastError:
            return False
        return self._local_presence.resume(
            connection_id, principal.user_id, client.link, client.offset, first_frames
        )

    async def remove(self, connection_id: str, *, lost: bool) -> None:
        self._notifications.forget(connection_id)
        await self._sessions.remove_connection(connection_id, deliberate=not lost)

    def last_offset(self, connection_id: str) -> str:
        return self._hub.last_offset(connection_id)

    def export_parked(
        self, connection_id: str, owner: Owner, offset: str | None
    ) -> ConnectionState | None:
        return None

    async def import_parked(self, client: ResumingClient, state: ConnectionState) -> bool:
        return False

    async def release_idle(self) -> None:
        pass
