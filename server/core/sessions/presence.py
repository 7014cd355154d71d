"""The participants of one session: users with their connections, and what to announce."""

from collections import OrderedDict
from dataclasses import dataclass, field

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError


@dataclass(frozen=True, slots=True)
class Member:
    """One participant: a user with any number of connections."""

    user_id: str
    connections: int
    joined_at_ms: int

    def body(self) -> dict[str, object]:
        """The participant as clients see it."""
        return {
            "user_id": self.user_id,
            "connections": self.connections,
            "joined_at": self.joined_at_ms,
        }


@dataclass(frozen=True, slots=True)
class PresenceJoin:
    """A joined connection; `announce` if its user became a participant with it."""

    user_id: str
    participant_count: int
    announce: bool


@dataclass(frozen=True, slots=True)
class PresenceLeave:
    """Removed connections of a user; `announce` if the user is no longer a participant."""

    user_id: str
    participant_count: int
    announce: bool
    connections: tuple[str, ...] = ()


def session_full(max_participants: int) -> LimitError:
    """The error for a session with the maximum of participants."""
    return LimitError(
        ErrorCode.LIMIT_CONNECTIONS,
        f"a session may have {max_participants} participants",
        details={"limit": max_participants},
    )


@dataclass(slots=True)
class _Participant:
    joined_at_ms: int
    connections: dict[str, None] = field(default_factory=dict)


class Presence:
    """The participants of one session; each one's joins and leaves are announced alternately.

    A user whose last connection was lost stays a participant for the grace period, and is never
    announced as gone if a connection joins before `pop_expired` removes the user. A limit of 0
    means none.
    """

    __slots__ = ("_grace_seconds", "_lost", "_max_participants", "_owners", "_users")

    def __init__(self, *, grace_seconds: float, max_participants: int = 0) -> None:
        self._grace_seconds = grace_seconds
        self._max_participants = max_participants
        self._owners: dict[str, str] = {}
        self._users: dict[str, _Participant] = {}
        # Users without a connection, by the end of their grace period; in order, because it is the
        # same for all. An OrderedDict, because removing the first key is slow in a dict.
        self._lost: OrderedDict[str, float] = OrderedDict()

    @property
    def participant_count(self) -> int:
        """The number of users, those in their grace period included."""
        return len(self._users)

    @property
    def connection_count(self) -> int:
        """The number of connections of all users."""
        return len(self._owners)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._users

    def members(self) -> tuple[Member, ...]:
        """All participants in the order in which they joined."""
        return tuple(
            Member(user_id, len(each.connections), each.joined_at_ms)
            for user_id, each in self._users.items()
        )

    def user_of(self, connection_id: str) -> str | None:
        """The user of a connection; None if it has not joined."""
        return self._owners.get(connection_id)

    def connections_of(self, user_id: str) -> tuple[str, ...]:
        """The joined connections of one user."""
        participant = self._users.get(user_id)
        return () if participant is None else tuple(participant.connections)

    def check_capacity(self, user_id: str) -> None:
        """Raise `LimitError` if the session is full and the user is not in it."""
        if user_id not in self._users and 0 < self._max_participants <= len(self._users):
            raise session_full(self._max_participants)

    def join(self, connection_id: str, user_id: str, now_ms: int) -> PresenceJoin:
        """Add a connection; a no-op if it has joined. Raises `LimitError` in a full session."""
        owner = self._owners.get(connection_id)
        if owner is not None:
            return PresenceJoin(owner, len(self._users), announce=False)
        self.check_capacity(user_id)
        participant = self._users.get(user_id)
        announce = participant is None
        if participant is None:
            participant = self._users[user_id] = _Participant(now_ms)
        self._lost.pop(user_id, None)
        participant.connections[connection_id] = None
        self._owners[connection_id] = user_id
        return PresenceJoin(user_id, len(self._users), announce)

    def restore(self, user_id: str, joined_at_ms: int, now: float) -> None:
        """Add a user of an earlier run without a connection; the grace period begins."""
        if self._grace_seconds > 0:
            self._users[user_id] = _Participant(joined_at_ms)
            self._lost[user_id] = now + self._grace_seconds

    def leave(self, connection_id: str) -> PresenceLeave | None:
        """Remove a connection that leaves deliberately; None if it has not joined."""
        user_id = self._remove(connection_id)
        if user_id is None:
            return None
        announce = not self._users[user_id].connections
        if announce:
            del self._users[user_id]
        return PresenceLeave(user_id, len(self._users), announce, (connection_id,))

    def disconnect(self, connection_id: str, now: float) -> PresenceLeave | None:
        """Remove a lost connection; if it was the user's last, the grace period starts."""
        if self._grace_seconds <= 0:
            return self.leave(connection_id)
        user_id = self._remove(connection_id)
        if user_id is None:
            return None
        if not self._users[user_id].connections:
            self._lost[user_id] = now + self._grace_seconds
        return PresenceLeave(
            user_id, len(self._users), announce=False, connections=(connection_id,)
        )

    def next_expiry(self) -> float | None:
        """When the next grace period ends; None if no user is in one."""
        return next(iter(self._lost.values()), None)

    def pop_expired(self, now: float) -> list[PresenceLeave]:
        """Remove and return the users whose grace period is over."""
        leaves = []
        while self._lost:
            user_id, expires_at = next(iter(self._lost.items()))
            if expires_at > now:
                break
            del self._lost[user_id]
            del self._users[user_id]
            leaves.append(PresenceLeave(user_id, len(self._users), announce=True))
        return leaves

    def kick(self, user_id: str) -> PresenceLeave | None:
        """Remove a user with all connections, without a grace period; None if not present."""
        participant = self._users.pop(user_id, None)
        if participant is None:
            return None
        self._lost.pop(user_id, None)
        for connection_id in participant.connections:
            del self._owners[connection_id]
        return PresenceLeave(
            user_id, len(self._users), announce=True, connections=tuple(participant.connections)
        )

    def clear(self) -> tuple[str, ...]:
        """Remove every user, without announcing it; returns their connections."""
        connections = tuple(self._owners)
        self._owners.clear()
        self._users.clear()
        self._lost.clear()
        return connections

    def _remove(self, connection_id: str) -> str | None:
        user_id = self._owners.pop(connection_id, None)
        if user_id is not None:
            del self._users[user_id].connections[connection_id]
        return user_id
