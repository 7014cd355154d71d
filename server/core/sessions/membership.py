"""Which connections of this node are members of which sessions."""

from dataclasses import dataclass, field
from typing import Protocol

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError
from server.core.sessions.events import SessionEvent
from server.core.sessions.records import SessionKey


@dataclass(frozen=True, slots=True)
class Membership:
    """One connection in one session, and the session's revision when it joined."""

    user_id: str
    revision: int


@dataclass(slots=True, eq=False)
class _SessionMembers:
    memberships: dict[str, Membership] = field(default_factory=dict)
    known_revision: int = 0


class Uses(Protocol):
    """Counts the members of each session."""

    def add(self, key: SessionKey) -> None:
        """One more connection is a member."""

    def remove(self, key: SessionKey) -> None:
        """One connection less is a member."""


class Memberships:
    """Memberships indexed by session and by connection; an operation costs only its result."""

    def __init__(self, *, max_per_connection: int = 0, uses: Uses | None = None) -> None:
        self._max_per_connection = max_per_connection
        # None if nobody asks which sessions are in use.
        self._uses = uses
        self._sessions: dict[SessionKey, _SessionMembers] = {}
        self._connections: dict[str, dict[SessionKey, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, membership: tuple[str, SessionKey]) -> bool:
        connection_id, key = membership
        return key in self._connections.get(connection_id, ())

    def check_limit(self, connection_id: str, key: SessionKey) -> None:
        """Raise `LimitError` if the connection is in too many other sessions."""
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
        """Add a member; without a revision it joined at the newest one this node knows."""
        session = self._sessions.setdefault(key, _SessionMembers())
        if connection_id not in session.memberships:
            self._connections.setdefault(connection_id, {})[key] = None
            self._count += 1
            if self._uses is not None:
                self._uses.add(key)
        session.memberships[connection_id] = Membership(
            user_id, session.known_revision if revision is None else revision
        )

    def remove(self, connection_id: str, key: SessionKey) -> bool:
        """Remove a member; False if it was not one."""
        mine = self._connections.get(connection_id, {})
        if key not in mine:
            return False
        del mine[key]
        if not mine:
            del self._connections[connection_id]
        session = self._sessions[key]
        del session.memberships[connection_id]
        if not session.memberships:
            del self._sessions[key]
        self._count -= 1
        if self._uses is not None:
            self._uses.remove(key)
        return True

    def remove_all(self, connection_id: str) -> tuple[SessionKey, ...]:
        """Remove a connection from all its sessions; returns them."""
        keys = self.of_connection(connection_id)
        for key in keys:
            self.remove(connection_id, key)
        return keys

    def of_connection(self, connection_id: str) -> tuple[SessionKey, ...]:
        """The sessions of one connection."""
        return tuple(self._connections.get(connection_id, ()))

    def members_of(self, key: SessionKey) -> tuple[str, ...]:
        """The connections of this node in a session."""
        session = self._sessions.get(key)
        return () if session is None else tuple(session.memberships)

    def revisions_of(self, connection_id: str) -> dict[SessionKey, int]:
        """The sessions of one connection, each with the revision that it joined at."""
        return {
            key: self._sessions[key].memberships[connection_id].revision
            for key in self.of_connection(connection_id)
        }

    def is_empty(self, key: SessionKey) -> bool:
        """True if no connection of this node is a member of the session."""
        return key not in self._sessions

    def update_revision(self, event: SessionEvent) -> None:
        """Record the newest revision that this node knows of a session with members here."""
        session = self._sessions.get(event.key)
        if session is not None:
            session.known_revision = max(session.known_revision, event.revision)

    def joined_before(self, event: SessionEvent, *, of_user: bool = False) -> tuple[str, ...]:
        """The connections that joined before the event; with `of_user` only its user's."""
        session = self._sessions.get(event.key)
        if session is None:
            return ()
        return tuple(
            connection_id
            for connection_id, membership in session.memberships.items()
            if membership.revision < event.revision
            and (not of_user or membership.user_id == event.user_id)
        )

    def excluded_from(self, event: SessionEvent) -> frozenset[str]:
        """The connections not to send the event to: its own user's, and those that joined later."""
        session = self._sessions.get(event.key)
        if session is None:
            return frozenset()
        return frozenset(
            connection_id
            for connection_id, membership in session.memberships.items()
            if membership.user_id == event.user_id or membership.revision >= event.revision
        )
