"""What is known of one session: what it is for, who made it, and who is in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from client_sdk.contract import SESSION_ID_PATTERN, ErrorCode
from server.core.errors import LimitError, RequestError
from server.core.sessions.presence import Presence, PresenceJoin, PresenceLeave

SessionKey = tuple[str, str]

_CHANNEL_PREFIX = "session@"

# `$` in Python also matches before a trailing newline; fullmatch does not care for it.
_SESSION_ID = re.compile(SESSION_ID_PATTERN.strip("^$"))


class SessionKind(StrEnum):
    """What a session is for; the rules are the same for all of them."""

    SESSION = "session"
    JOB = "job"
    THREAD = "thread"


_PREFIXED = (SessionKind.JOB, SessionKind.THREAD)


def kind_of(session_id: str) -> SessionKind:
    """Read `job:ID`, `thread:ID` or any other id; says what is wrong with what is none."""
    if not _SESSION_ID.fullmatch(session_id):
        raise RequestError(
            ErrorCode.REQUEST_INVALID,
            "a session id has 1 to 128 letters, digits and _.:- and begins with no sign",
        )
    for kind in _PREFIXED:
        if session_id.startswith(f"{kind}:"):
            if len(session_id) == len(kind) + 1:
                raise RequestError(
                    ErrorCode.REQUEST_INVALID,
                    f"a {kind} needs an id of its own behind the colon: {kind}:ID",
                )
            return kind
    return SessionKind.SESSION


def session_channel(org: str, session_id: str) -> str:
    """The broker's key; the length keeps two orgs apart whatever characters their names hold."""
    return f"{_CHANNEL_PREFIX}{len(org)}:{org}:{session_id}"


def key_of_channel(channel: str) -> SessionKey | None:
    """The session whose channel it is; None for any other."""
    digits, _, rest = channel.removeprefix(_CHANNEL_PREFIX).partition(":")
    if not channel.startswith(_CHANNEL_PREFIX) or not digits.isdecimal():
        return None
    org, session_id = rest[: int(digits)], rest[int(digits) + 1 :]
    key = (org, session_id)
    return key if session_channel(*key) == channel else None


@dataclass(frozen=True, slots=True)
class SessionRules:
    """How long sessions stay and how many there may be; a limit of 0 means none.

    A session stays for `retention_seconds` after its last participant has left, or after it
    was closed. Without `join_creates` it has to be there before anybody can join it.
    """

    grace_seconds: float
    retention_seconds: float
    max_sessions: int = 0
    max_sessions_per_user: int = 0
    max_participants: int = 0
    join_creates: bool = True

    def too_many_created(self) -> LimitError:
        """A user has made as many as may last."""
        return LimitError(
            ErrorCode.LIMIT_TOPICS,
            f"a user may have made {self.max_sessions_per_user} sessions that last",
            details={"limit": self.max_sessions_per_user},
        )


def too_many_sessions() -> LimitError:
    """There is no room for another session."""
    return LimitError(ErrorCode.SERVER_OVERLOADED, "there is no room for another session")


def no_such_session() -> RequestError:
    """Nobody has made it."""
    return RequestError(ErrorCode.SESSION_NOT_JOINED, "there is no such session")


def session_closed() -> RequestError:
    """Nobody may be in it any more."""
    return RequestError(ErrorCode.SESSION_CLOSED, "the session was closed")


def not_in_session() -> RequestError:
    """The user to be sent away is not there."""
    return RequestError(ErrorCode.SESSION_NOT_JOINED, "the user is not in the session")


@dataclass(slots=True, eq=False)
class SessionRecord:
    """One session; whoever made it said what it is for, and that stays."""

    org: str
    session_id: str
    kind: SessionKind
    created_at_ms: int
    created_by: str
    presence: Presence
    closed: bool = False
    # How much has happened in it besides messages.
    revision: int = 0
    # Whatever a client says of it: not for logs.
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.metadata = MappingProxyType(dict(self.metadata))

    @property
    def key(self) -> SessionKey:
        """A session id means something within its org only."""
        return (self.org, self.session_id)


@dataclass(frozen=True, slots=True)
class SessionJoin:
    """A connection is in a session; `created` where that made the session."""

    record: SessionRecord
    join: PresenceJoin
    created: bool


@dataclass(frozen=True, slots=True)
class SessionLeave:
    """Somebody is in a session with fewer connections, or no longer."""

    record: SessionRecord
    leave: PresenceLeave
