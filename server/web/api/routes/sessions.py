"""Sessions, for moderators, who need not be in them."""

from typing import Annotated, Any

import orjson
from pydantic import Field, WithJsonSchema

from client_sdk.contract import SESSION_ID_PATTERN, Participant, Scope
from server.services import SessionModeration
from server.web.api.endpoints import Answer, AnyEndpoint, ApiCall, Endpoint
from server.web.api.paging import Cursor, Limit
from server.web.api.reading import FROM_TEXT, ApiRequest, JsonObject

SessionId = Annotated[str, Field(pattern=SESSION_ID_PATTERN)]
# Encoded already, as all members get it.
EncodedMessage = Annotated[
    Any, WithJsonSchema({"$ref": "#/components/schemas/SessionMessage"}, mode="serialization")
]


class SessionsRequest(ApiRequest):
    """The sessions of the token's org."""

    limit: Limit = 50
    cursor: Cursor | None = None


class SessionInfo(Answer):
    """A session in the list."""

    session_id: str
    participant_count: int
    closed: bool
    metadata: dict[str, object] = Field(description="as the one who created it gave it")


class SessionsAnswer(Answer):
    """One page of sessions; a token's `sessions` can leave gaps in it."""

    sessions: list[SessionInfo]
    next_cursor: str | None = None


class SessionRequest(ApiRequest):
    """One session."""

    session_id: SessionId


class SessionAnswer(Answer):
    """A session with its participants over all nodes, and its newest position."""

    session_id: str
    participant_count: int
    participants: list[Participant]
    closed: bool
    metadata: dict[str, object]
    epoch: str
    seq: int


class SessionHistoryRequest(ApiRequest):
    """The newest messages, or those before a position."""

    session_id: SessionId
    before_seq: Annotated[int, Field(ge=1, le=2**53), FROM_TEXT] | None = None
    limit: Annotated[int, Field(ge=1, le=1000), FROM_TEXT] = 100


class SessionHistoryAnswer(Answer):
    """Messages in order, oldest first."""

    messages: list[EncodedMessage]


class SendRequest(ApiRequest):
    """A message to all members, from the token's user."""

    session_id: SessionId
    data: JsonObject
    id: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="makes a retry have the position of the first call"
    )


class SendAnswer(Answer):
    """The position of the message."""

    id: str
    epoch: str
    seq: int
    ts: int


class KickRequest(ApiRequest):
    """A user to remove from a session, on every device."""

    session_id: SessionId
    user: Annotated[str, Field(min_length=1, max_length=128)]


class CloseAnswer(Answer):
    """How many connections were in it."""

    connections: int


class SessionRoutes:
    """The endpoints of sessions."""

    def __init__(self, moderation: SessionModeration) -> None:
        self._moderation = moderation

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """All endpoints of this room."""
        scope = Scope.SESSION_MODERATE
        return (
            Endpoint(
                "GET",
                "/sessions",
                scope,
                "List sessions",
                SessionsRequest,
                SessionsAnswer,
                self._sessions,
            ),
            Endpoint(
                "GET",
                "/sessions/{session_id}",
                scope,
                "Read a session",
                SessionRequest,
                SessionAnswer,
                self._session,
            ),
            Endpoint(
                "GET",
                "/sessions/{session_id}/history",
                scope,
                "Read the history of a session",
                SessionHistoryRequest,
                SessionHistoryAnswer,
                self._history,
            ),
            Endpoint(
                "POST",
                "/sessions/{session_id}/messages",
                scope,
                "Send a message to a session",
                SendRequest,
                SendAnswer,
                self._send,
            ),
            Endpoint(
                "POST",
                "/sessions/{session_id}/kick",
                scope,
                "Kick a user out of a session",
                KickRequest,
                CloseAnswer,
                self._kick,
                is_audited=True,
            ),
            Endpoint(
                "DELETE",
                "/sessions/{session_id}",
                scope,
                "Close a session",
                SessionRequest,
                CloseAnswer,
                self._close,
                is_audited=True,
            ),
        )

    async def _sessions(self, call: ApiCall, request: SessionsRequest) -> SessionsAnswer:
        found, last = await self._moderation.page(
            call.principal, request.cursor or "", request.limit
        )
        return SessionsAnswer(
            sessions=[
                SessionInfo(
                    session_id=each.session_id,
                    participant_count=each.participant_count,
                    closed=each.closed,
                    metadata=dict(each.metadata),
                )
                for each in found
            ],
            next_cursor=last,
        )

    async def _session(self, call: ApiCall, request: SessionRequest) -> SessionAnswer:
        session = await self._moderation.find(call.principal, request.session_id)
        participants = session.participants
        return SessionAnswer.model_validate(
            {
                "session_id": request.session_id,
                **participants.body(),
                "closed": participants.closed,
                "metadata": dict(participants.metadata),
                **session.head.body(),
            }
        )

    async def _history(self, call: ApiCall, request: SessionHistoryRequest) -> SessionHistoryAnswer:
        messages = await self._moderation.history(
            call.principal, request.session_id, request.before_seq, request.limit
        )
        return SessionHistoryAnswer(messages=[orjson.Fragment(each) for each in messages])

    async def _send(self, call: ApiCall, request: SendRequest) -> SendAnswer:
        reply = await self._moderation.send(
            call.principal, request.session_id, request.data, request.id or call.idempotency_key
        )
        return SendAnswer.model_validate(reply)

    async def _kick(self, call: ApiCall, request: KickRequest) -> CloseAnswer:
        connections = await self._moderation.kick(call.principal, request.session_id, request.user)
        return CloseAnswer(connections=connections)

    async def _close(self, call: ApiCall, request: SessionRequest) -> CloseAnswer:
        connections = await self._moderation.close(call.principal, request.session_id)
        return CloseAnswer(connections=connections)
