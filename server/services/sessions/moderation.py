"""Lists, reads, writes to and closes sessions for a moderator, who need not be a member."""

from collections.abc import Mapping
from dataclasses import dataclass

from client_sdk.contract import ErrorCode
from server.access import AuthorizationRule, Principal
from server.core.errors import AccessError
from server.core.log.entries import Position
from server.core.sessions.participants import Participants, SessionSummary
from server.core.sessions.records import (
    kind_of,
    no_such_session,
    session_channel,
    session_closed,
)
from server.core.sessions.session_state import SessionState
from server.ports import Broker, PresenceManager
from server.services.sessions.encoding import Reply
from server.services.sessions.messages import SessionMessages
from server.services.sessions.service import SessionsService


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session with its participants, and the position of its newest message."""

    participants: Participants
    head: Position


class SessionModeration:
    """The sessions of the principal's org; the caller has checked its scope.

    Raises `AccessError` if the token does not allow a session, and `RequestError` if it does not
    exist.
    """

    def __init__(
        self,
        sessions: SessionsService,
        messages: SessionMessages,
        presence: PresenceManager,
        broker: Broker,
        rule: AuthorizationRule | None = None,
    ) -> None:
        self._sessions = sessions
        self._messages = messages
        self._presence = presence
        self._broker = broker
        self._rule = rule or AuthorizationRule()

    async def page(
        self, principal: Principal, after: str, limit: int
    ) -> tuple[list[SessionSummary], str | None]:
        """The sessions that the token allows, of those whose ids follow `after`, sorted by id.

        Also returns the id from which to go on; None if there are no more.
        """
        found = await self._presence.sessions_of(principal.org, after, limit)
        allowed = [each for each in found if principal.may_join(each.session_id)]
        return allowed, found[-1].session_id if len(found) == limit else None

    async def find(self, principal: Principal, session_id: str) -> SessionView:
        """A session, open or closed."""
        participants = await self._require(principal, session_id)
        head = await self._broker.head(session_channel(principal.org, session_id))
        return SessionView(participants, head)

    async def history(
        self, principal: Principal, session_id: str, before_seq: int | None, limit: int
    ) -> list[bytes]:
        """The newest messages as JSON, or those before `before_seq`, in order."""
        await self._require(principal, session_id)
        name = session_channel(principal.org, session_id)
        entries = await self._broker.before(name, before_seq, limit)
        state = SessionState(session_id, Position("", 0), max_messages=1, max_bytes=1)
        return [state.body(each) for each in entries]

    async def send(
        self,
        principal: Principal,
        session_id: str,
        data: Mapping[str, object],
        identifier: str | None,
    ) -> Reply:
        """Send a message to all members, as the principal's user."""
        participants = await self._require(principal, session_id)
        if participants.closed:
            raise session_closed()
        return await self._messages.publish(principal, session_id, data, identifier)

    async def kick(self, principal: Principal, session_id: str, user_id: str) -> int:
        """Remove a user from a session; returns the number of connections."""
        await self._authorize(principal, session_id)
        connections = await self._presence.kick((principal.org, session_id), user_id)
        await self._sessions.release_idle()
        return connections

    async def close(self, principal: Principal, session_id: str) -> int:
        """Close a session for all members; returns the number of connections."""
        await self._authorize(principal, session_id)
        connections = await self._presence.close((principal.org, session_id))
        await self._sessions.release_idle()
        return connections

    async def _require(self, principal: Principal, session_id: str) -> Participants:
        await self._authorize(principal, session_id)
        participants = await self._presence.participants((principal.org, session_id))
        if participants is None:
            raise no_such_session()
        return participants

    async def _authorize(self, principal: Principal, session_id: str) -> None:
        if not principal.may_join(session_id):
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, "the token does not allow this session")
        kind_of(session_id)
        await self._rule.check_join(principal, session_id)
