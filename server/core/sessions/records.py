"""The record of one session, its rules, and the errors about it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from client_sdk.contract import SESSION_ID_PATTERN, ErrorCode
from server.core.errors import LimitError, RequestError
from server.core.limits.shares import Level, share_error
from server.core.sessions.presence import Presence, PresenceJoin, PresenceLeave

SessionKey = tuple[str, str]

_CHANNEL_PREFIX = "session@"

# `$` in Python also matches before a trailing newline; fullmatch does not.
_SESSION_ID = re.compile(SESSION_ID_PATTERN.strip("^$"))


class SessionKind(StrEnum):
    """The kind of a session; the rules are the same for all kinds."""

    SESSION = "session"
    JOB = "job"
    THREAD = "thread"


_PREFIXED = (SessionKind.JOB, SessionKind.THREAD)


def kind_of(session_id: str) -> SessionKind:
    """The kind that an id names by its prefix; raises `RequestError` for an invalid id."""
    if not _SESSION_ID.fullmatch(session_id):
        raise RequestError(
            ErrorCode.REQUEST_INVALID,
            "a session id has 1 to 128 letters, digits or _.:- and starts with a letter or digit",
        )
    for kind in _PREFIXED:
        if session_id.startswith(f"{kind}:"):
            if len(session_id) == len(kind) + 1:
                raise RequestError(
                    ErrorCode.REQUEST_INVALID,
                    f"a {kind} needs an id after the colon: {kind}:ID",
                )
            return kind
    return SessionKind.SESSION


def session_channel(org: str, session_id: str) -> str:
    """The broker's key; the length keeps orgs apart whatever characters their names contain."""
    return f"{_CHANNEL_PREFIX}{len(org)}:{org}:{session_id}"


def is_session_channel(channel: str) -> bool:
    """Whether a channel is a session's."""
    return channel.startswith(_CHANNEL_PREFIX)


def key_of_channel(channel: str) -> SessionKey | None:
    """The session of a channel; None if it is not a session's."""
    digits, _, rest = channel.removeprefix(_CHANNEL_PREFIX).partition(":")
    if not channel.startswith(_CHANNEL_PREFIX) or not digits.isdecimal():
        return None
    org, session_id = rest[: int(digits)], rest[int(digits) + 1 :]
    key = (org, session_id)
    return key if session_channel(*key) == channel else None


@dataclass(frozen=True, slots=True)
class SessionRules:
    """How long sessions are kept and how many there may be; a limit of 0 means none.

    A session is kept for `retention_seconds` after its last participant has left, or after it was
    closed. Without `join_creates` it must be created before anybody can join it.
    """

    grace_seconds: float
    retention_seconds: float
    max_sessions: int = 0
    max_sessions_per_org: int = 0
    max_sessions_per_user: int = 0
    max_participants: int = 0
    join_creates: bool = True

    def too_many_created(self) -> LimitError:
        """The error for a user who has created too many sessions."""
        return LimitError(
            ErrorCode.LIMIT_TOPICS,
            f"a user may have created {self.max_sessions_per_user} sessions at a time",
            details={"limit": self.max_sessions_per_user},
        )

    def too_many_of_org(self) -> LimitError:
        """The error for an org that has too many sessions."""
        return share_error(Level.ORG, "sessions", self.max_sessions_per_org)


def too_many_sessions() -> LimitError:
    """The error for a server with the maximum of sessions."""
    return LimitError(ErrorCode.SERVER_OVERLOADED, "the server has reached its limit of sessions")


def no_such_session() -> RequestError:
    """The error for a session that does not exist."""
    return RequestError(ErrorCode.SESSION_NOT_JOINED, "there is no such session")


def session_closed() -> RequestError:
    """The error for a closed session."""
    return RequestError(ErrorCode.SESSION_CLOSED, "the session was closed")


def not_in_session() -> RequestError:
    """The error for kicking a user who is not in the session."""
    return RequestError(ErrorCode.SESSION_NOT_JOINED, "the user is not in the session")


@dataclass(slots=True, eq=False)
class SessionRecord:
    """One session; its creator sets the metadata, which never changes."""

    org: str
    session_id: str
    kind: SessionKind
    created_at_ms: int
    created_by: str
    presence: Presence
    closed: bool = False
    # The number of events besides messages.
    revision: int = 0
    # Chosen by a client: not for logs.
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.metadata = MappingProxyType(dict(self.metadata))

    @property
    def key(self) -> SessionKey:
        """The org and the id: ids are unique within an org only."""
        return (self.org, self.session_id)


@dataclass(frozen=True, slots=True)
class SessionJoin:
    """A connection that joined a session; `created` if it created the session."""

    record: SessionRecord
    join: PresenceJoin
    created: bool


@dataclass(frozen=True, slots=True)
class SessionLeave:
    """A user who left a session with some or all connections."""

    record: SessionRecord
    leave: PresenceLeave
