"""The participants of a session at one revision, over all nodes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.presence import Member
from server.core.sessions.records import session_closed


@dataclass(frozen=True, slots=True)
class Participants:
    """The members in the order in which they joined, at a revision of the session."""

    revision: int
    members: tuple[Member, ...]
    closed: bool = False
    # Chosen by clients: not for logs.
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False)

    def body(self) -> dict[str, object]:
        """The participants as clients see them."""
        return {
            "participant_count": len(self.members),
            "participants": [member.body() for member in self.members],
        }

    def apply(self, events: Iterable[SessionEvent], user_id: str) -> "Participants":
        """The participants after the events; those of earlier revisions are skipped.

        Raises `RequestError` if the events close the session or kick this user.
        """
        later = [each for each in events if each.revision > self.revision]
        if not later:
            return self
        members = {each.user_id: each for each in self.members}
        for each in later:
            match each.kind:
                case SessionEventKind.CLOSED:
                    raise session_closed()
                case SessionEventKind.KICKED if each.user_id == user_id:
                    raise RequestError(ErrorCode.SESSION_NOT_JOINED, "the user was kicked")
                case SessionEventKind.JOINED:
                    members.setdefault(each.user_id, Member(each.user_id, 1, each.ts_ms))
                case SessionEventKind.LEFT | SessionEventKind.KICKED:
                    members.pop(each.user_id, None)
                case _:
                    pass
        return replace(self, revision=later[-1].revision, members=tuple(members.values()))


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """One session in a list of them."""

    session_id: str
    participant_count: int
    closed: bool
    # Chosen by clients: not for logs.
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False)
