"""The events of a session besides its messages, delivered to every node with members in it."""

from dataclasses import dataclass, field
from enum import StrEnum

from server.core.sessions.records import SessionKey


class SessionEventKind(StrEnum):
    """The kinds of session events; those of one session arrive in their order."""

    JOINED = "joined"
    LEFT = "left"
    KICKED = "kicked"
    # A kick of a user whose grace period is over; one of the user's connections may still resume.
    BARRED = "barred"
    CLOSED = "closed"
    # The retention time is over and the session is deleted.
    EXPIRED = "over"
    SIGNAL = "signal"
    # A resumed connection's user is no longer a member; only its own node gets this.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """One event; `revision` is the session's revision after it."""

    key: SessionKey
    kind: SessionEventKind
    revision: int
    ts_ms: int
    user_id: str = ""
    participant_count: int = 0
    # The sender of a signal, or the refused connection.
    connection_id: str = ""
    # Not for logs.
    data: bytes = field(default=b"", repr=False)
