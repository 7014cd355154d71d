"""What happens in a session besides its messages, and every node with members there hears."""

from dataclasses import dataclass, field
from enum import StrEnum

from server.core.sessions.records import SessionKey


class SessionEventKind(StrEnum):
    """Each is heard in the order in which it came to be, those of one session at least."""

    JOINED = "joined"
    LEFT = "left"
    KICKED = "kicked"
    # The same of a user who was given up already: a connection of theirs may still come back.
    BARRED = "barred"
    CLOSED = "closed"
    # Its time is over, and it is forgotten; every node hears that looked after it.
    EXPIRED = "over"
    SIGNAL = "signal"
    # A connection was had back, but its user has lost the place; only its own node hears.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """One happening; the revision says which state of the session it has led to."""

    key: SessionKey
    kind: SessionEventKind
    revision: int
    ts_ms: int
    user_id: str = ""
    participant_count: int = 0
    # Whose signal it is, or who was refused.
    connection_id: str = ""
    # Not for logs.
    data: bytes = field(default=b"", repr=False)
