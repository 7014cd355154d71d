"""What `/session` carries: the requests of clients, and the bodies of what they receive."""

from pydantic import Field

from client_sdk.contract.messages import Body
from client_sdk.contract.requests import Position, Request, SessionId


class Join(Request):
    """`join` a session; `since` asks for what was missed, `metadata` describes a new session."""

    session_id: SessionId
    since: Position | None = None
    metadata: dict[str, object] | None = None


class Leave(Request):
    """`leave` a session."""

    session_id: SessionId


class Send(Request):
    """`send` a message to everybody in a session; an `id` makes it idempotent."""

    session_id: SessionId
    data: dict[str, object]
    id: str | None = Field(default=None, min_length=1, max_length=128)


class Signal(Request):
    """`signal` something that holds for a moment only, such as typing: it is not stored."""

    session_id: SessionId
    data: dict[str, object]


class FetchHistory(Request):
    """`history`: the last messages, or those before one that is known."""

    session_id: SessionId
    before_seq: int | None = Field(default=None, ge=1)
    limit: int = Field(default=100, ge=1, le=1000)


class ListParticipants(Request):
    """`participants`: who is here?"""

    session_id: SessionId


class Kick(Request):
    """`kick` a user out of a session, on every device."""

    session_id: SessionId
    user_id: str = Field(min_length=1, max_length=128)


class CloseSession(Request):
    """`close` a session for everybody."""

    session_id: SessionId


class Participant(Body):
    """One user in a session; `joined_at` is when the first connection came, in ms."""

    user_id: str
    connections: int
    joined_at: int


class SessionMessage(Body):
    """`message`: what somebody said in a session, and where it stands."""

    session_id: str
    epoch: str
    seq: int
    id: str
    user_id: str
    data: dict[str, object]
    ts: int


class MemberChange(Body):
    """`user_joined` and `user_left`: a user's first connection came, or the last one went."""

    session_id: str
    user_id: str
    participant_count: int
    ts: int


class Notification(Body):
    """`notification`: for one user, on every device; a critical one wants to be acknowledged."""

    id: str
    event: str
    data: dict[str, object]
    critical: bool
    ts: int
