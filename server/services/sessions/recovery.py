"""Parks, resumes, exports and imports the session memberships of connections."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from client_sdk.contract import SESSION_NAMESPACE
from server.access import Principal
from server.core.errors import FloorcastError
from server.core.recovery.connection_state import ConnectionState, MembershipState
from server.core.recovery.tickets import Owner
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.records import SessionKey, kind_of, session_channel
from server.delivery import ExportedSubscription, Hub
from server.ports import PresenceManager
from server.services.recovery import ResumingClient, parse_pushes
from server.services.sessions.encoding import encode_announcement
from server.services.sessions.notifications import Notifications
from server.services.sessions.service import SessionsService


class SessionRecovery:
    """Implements `RecoverableState` for `/session`."""

    def __init__(
        self,
        sessions: SessionsService,
        presence: PresenceManager,
        notifications: Notifications,
        hub: Hub,
    ) -> None:
        self._sessions = sessions
        self._presence = presence
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
        exported = self._hub.export(connection_id, offset)
        revisions = {
            session_channel(*key): (key[1], revision)
            for key, revision in self._local_presence.parked_sessions(connection_id).items()
        }
        initial_session = self._local_presence.initial_session(connection_id)
        self._local_presence.remove_connection(connection_id, lost=True)
        # A session that was closed in the meantime has no members any more.
        if exported is None or any(
            each.channel not in revisions for each in exported.subscriptions
        ):
            return None
        sessions = []
        for each in exported.subscriptions:
            session_id, revision = revisions[each.channel]
            sessions.append(MembershipState(session_id, each.position, revision))
        return ConnectionState(
            connection_id,
            *owner,
            sessions=tuple(sessions),
            initial_session=initial_session,
            pushes=tuple(push.decode() for push in exported.pushes),
        )

    async def import_parked(self, client: ResumingClient, state: ConnectionState) -> bool:
        keys, pushes = _parse_keys(state), parse_pushes(SESSION_NAMESPACE, state)
        if keys is None or pushes is None:
            return False
        opened: list[_ImportedSession] = []
        try:
            with ExitStack() as stack:
                for key, membership in zip(keys, state.sessions, strict=True):
                    stack.enter_context(self._sessions.hold(key))
                    # Those that this node handles before the connection is parked here.
                    handled = stack.enter_context(
                        self._local_presence.collect_events(state.connection_id, key)
                    )
                    await self._sessions.open(key, membership.position)
                    missed = await self._presence.events_since(key, membership.revision)
                    if missed is None:
                        return False
                    opened.append(_ImportedSession(key, membership, missed, handled))
                # No await from here on: events handled later follow the missed ones.
                return self._restore(client, state, opened, pushes)
        except FloorcastError:
            # The broker is down.
            return False
        finally:
            for key in keys:
                await self._sessions.release(key)

    async def release_idle(self) -> None:
        await self._sessions.release_idle()

    def _restore(
        self,
        client: ResumingClient,
        state: ConnectionState,
        opened: list["_ImportedSession"],
        pushes: list[bytes],
    ) -> bool:
        revisions: dict[SessionKey, int] = {}
        for session in opened:
            revisions[session.key] = session.membership.revision
            for event in session.missed_events():
                if _ends_membership(event, state.user_id):
                    return False
                announcement = encode_announcement(event)
                if announcement is not None and event.user_id != state.user_id:
                    pushes.append(announcement)
                revisions[session.key] = event.revision
        subscriptions = [
            ExportedSubscription(session_channel(*each.key), each.membership.position, 0)
            for each in opened
        ]
        if not self._hub.restore(
            state.connection_id, client.link, client.offset, subscriptions, pushes
        ):
            return False
        self._local_presence.import_parked(state.connection_id, revisions, state.initial_session)
        return True


@dataclass(frozen=True, slots=True)
class _ImportedSession:
    """A session that this node receives, and the session events that the client missed."""

    key: SessionKey
    membership: MembershipState
    missed: Sequence[SessionEvent]
    handled: Sequence[SessionEvent]

    def missed_events(self) -> list[SessionEvent]:
        """The missed events, and those that this node has handled since, oldest first."""
        newest = self.missed[-1].revision if self.missed else self.membership.revision
        return [*self.missed, *(each for each in self.handled if each.revision > newest)]


def _ends_membership(event: SessionEvent, user_id: str) -> bool:
    match event.kind:
        case SessionEventKind.CLOSED | SessionEventKind.EXPIRED:
            return True
        case SessionEventKind.KICKED | SessionEventKind.BARRED:
            return event.user_id == user_id
        case _:
            return False


def _parse_keys(state: ConnectionState) -> list[SessionKey] | None:
    """Validate the sessions of an exported connection: another node sent it."""
    keys = [(state.org, each.session_id) for each in state.sessions]
    try:
        for _, session_id in keys:
            kind_of(session_id)
    except FloorcastError:
        return None
    return keys if len(set(keys)) == len(keys) else None
