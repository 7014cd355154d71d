"""What is known of one session: what it is for, who made it, and who is in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from client_sdk.contract import SESSION_ID_PATTERN, ErrorCode
from server.core.errors import RequestError
from server.core.presence import Arrival, Departure, Presence

SessionKey = tuple[str, str]

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
class Joined:
    """A connection is in a session; `created` where that made the session."""

    record: SessionRecord
    arrival: Arrival
    created: bool


@dataclass(frozen=True, slots=True)
class Left:
    """Somebody is in a session with fewer connections, or no longer."""

    record: SessionRecord
    departure: Departure
