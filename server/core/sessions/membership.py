"""Which connections of this node are in which sessions: who may speak and read there."""

from dataclasses import dataclass, field

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError
from server.core.sessions.events import SessionEvent
from server.core.sessions.records import SessionKey


@dataclass(frozen=True, slots=True)
class Membership:
    """One connection in one session; it knows the session up to this revision."""

    user_id: str
    revision: int


@dataclass(slots=True, eq=False)
class _SessionMembers:
    memberships: dict[str, Membership] = field(default_factory=dict)
    known_revision: int = 0


class Memberships:
    """Both ways of looking at it; an operation costs only what it hands out."""

    def __init__(self, *, max_per_connection: int = 0) -> None:
        self._max_per_connection = max_per_connection
        self._sessions: dict[SessionKey, _SessionMembers] = {}
        self._connections: dict[str, dict[SessionKey, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, membership: tuple[str, SessionKey]) -> bool:
        connection_id, key = membership
        return key in self._connections.get(connection_id, ())

    def check_limit(self, connection_id: str, key: SessionKey) -> None:
        """Refuse a connection that is in as many other sessions as it may be."""
        mine = self._connections.get(connection_id, ())
        if 0 < self._max_per_connection <= len(mine) and key not in mine:
            raise LimitError(
                ErrorCode.LIMIT_TOPICS,
                f"a connection may be in {self._max_per_connection} sessions",
                details={"limit": self._max_per_connection},
            )

    def add(
        self, connection_id: str, user_id: str, key: SessionKey, revision: int | None = None
    ) -> None:
        """It is in; without a revision it knows what this node has heard."""
        room = self._sessions.setdefault(key, _SessionMembers())
        if connection_id not in room.memberships:
            self._connections.setdefault(connection_id, {})[key] = None
            self._count += 1
        room.memberships[connection_id] = Membership(
            user_id, room.known_revision if revision is None else revision
        )

    def remove(self, connection_id: str, key: SessionKey) -> bool:
        """It is out; False where it was."""
        mine = self._connections.get(connection_id, {})
        if key not in mine:
            return False
        del mine[key]
        if not mine:
            del self._connections[connection_id]
        room = self._sessions[key]
        del room.memberships[connection_id]
        if not room.memberships:
            del self._sessions[key]
        self._count -= 1
        return True

    def remove_all(self, connection_id: str) -> tuple[SessionKey, ...]:
        """It has ended; what it was in."""
        keys = self.of_connection(connection_id)
        for key in keys:
            self.remove(connection_id, key)
        return keys

    def of_connection(self, connection_id: str) -> tuple[SessionKey, ...]:
        """The sessions that one connection is in."""
        return tuple(self._connections.get(connection_id, ()))

    def is_empty(self, key: SessionKey) -> bool:
        """Whether nobody of this node is in a session."""
        return key not in self._sessions

    def update_revision(self, event: SessionEvent) -> None:
        """So much is known here of a session."""
        room = self._sessions.get(event.key)
        if room is not None:
            room.known_revision = max(room.known_revision, event.revision)

    def joined_before(self, event: SessionEvent, *, of_user: bool = False) -> tuple[str, ...]:
        """The connections that were in when it happened; those of its user alone, where asked."""
        room = self._sessions.get(event.key)
        if room is None:
            return ()
        return tuple(
            connection_id
            for connection_id, seat in room.memberships.items()
            if seat.revision < event.revision and (not of_user or seat.user_id == event.user_id)
        )

    def excluded_from(self, event: SessionEvent) -> frozenset[str]:
        """Who is not told: the user whom it is about, and who came later and knows."""
        room = self._sessions.get(event.key)
        if room is None:
            return frozenset()
        return frozenset(
            connection_id
            for connection_id, seat in room.memberships.items()
            if seat.user_id == event.user_id or seat.revision >= event.revision
        )
