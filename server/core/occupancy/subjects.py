"""What can be occupied: a user by connections, a session by members, a topic by subscribers."""

from dataclasses import dataclass
from enum import StrEnum

from client_sdk.contract import HookType


class SubjectKind(StrEnum):
    """The kinds of subjects; the value begins a subject's key."""

    USER = "u"
    SESSION = "s"
    TOPIC = "t"


@dataclass(frozen=True, slots=True)
class Subject:
    """A user, a session, or a topic; a public topic has no org, a private one an owner."""

    kind: SubjectKind
    org: str
    name: str
    owner: str = ""

    @property
    def key(self) -> bytes:
        """A text that only this subject has; its org can be read from it."""
        parts = [each.encode() for each in (self.org, self.owner, self.name)]
        return b"%b%d:%d:%b" % (
            self.kind.encode(),
            len(parts[0]),
            len(parts[1]),
            b"".join(parts),
        )

    @staticmethod
    def parse(key: bytes) -> "Subject":
        """The subject of a key; raises `ValueError` if it is malformed."""
        org_bytes, owner_bytes, text = key[1:].split(b":", 2)
        org_end = int(org_bytes)
        owner_end = org_end + int(owner_bytes)
        return Subject(
            SubjectKind(key[:1].decode()),
            text[:org_end].decode(),
            text[owner_end:].decode(),
            text[org_end:owner_end].decode(),
        )

    def fields(self) -> dict[str, object]:
        """How an event names the subject."""
        match self.kind:
            case SubjectKind.USER:
                return {"org": self.org, "user_id": self.name}
            case SubjectKind.SESSION:
                return {"org": self.org, "session_id": self.name}
            case SubjectKind.TOPIC if self.owner:
                return {"org": self.org, "user_id": self.owner, "topic": self.name}
            case _:
                return {"org": None, "topic": self.name}


def user_subject(org: str, user_id: str) -> Subject:
    """The subject of a user."""
    return Subject(SubjectKind.USER, org, user_id)


@dataclass(frozen=True, slots=True)
class OccupancyChange:
    """A subject that is in use for the first time, or by nobody for the grace time."""

    subject: Subject
    occupied: bool
    ts_ms: int

    @property
    def type(self) -> HookType:
        """The type of its event."""
        return change_type(self.subject.kind, occupied=self.occupied)


_OCCUPIED = {
    SubjectKind.USER: HookType.USER_ONLINE,
    SubjectKind.SESSION: HookType.SESSION_OCCUPIED,
    SubjectKind.TOPIC: HookType.TOPIC_OCCUPIED,
}
_VACATED = {
    SubjectKind.USER: HookType.USER_OFFLINE,
    SubjectKind.SESSION: HookType.SESSION_VACATED,
    SubjectKind.TOPIC: HookType.TOPIC_VACATED,
}


def change_type(kind: SubjectKind, *, occupied: bool) -> HookType:
    """The type of the event of a subject that becomes occupied or vacated."""
    return (_OCCUPIED if occupied else _VACATED)[kind]
