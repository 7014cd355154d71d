"""Who is in one session: users with their connections, and what of it the others are told."""

from collections import OrderedDict
from dataclasses import dataclass, field

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError


@dataclass(frozen=True, slots=True)
class Member:
    """One participant: a user, on however many connections."""

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
    """A connection joined; `announce` where that made its user a participant."""

    user_id: str
    participant_count: int
    announce: bool


@dataclass(frozen=True, slots=True)
class PresenceLeave:
    """Connections of a user went; `announce` where the user is a participant no longer."""

    user_id: str
    participant_count: int
    announce: bool
    connections: tuple[str, ...] = ()


def session_full(max_participants: int) -> LimitError:
    """There is no room for another participant."""
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
    """The participants of one session; for each, joining and leaving are announced in turn.

    A user whose last connection was lost stays a participant for the grace time: who is back
    before `due` gave the user up was never gone. A limit of 0 means none.
    """

    __slots__ = ("_grace_seconds", "_lost", "_max_participants", "_owners", "_users")

    def __init__(self, *, grace_seconds: float, max_participants: int = 0) -> None:
        self._grace_seconds = grace_seconds
        self._max_participants = max_participants
        self._owners: dict[str, str] = {}
        self._users: dict[str, _Participant] = {}
        # Users without a connection, by when they are given up. The grace time is the same for
        # all, so they stand in order; a plain dict would be slow to take the first from.
        self._lost: OrderedDict[str, float] = OrderedDict()

    @property
    def participant_count(self) -> int:
        """How many users are here, also those who may be back in a moment."""
        return len(self._users)

    @property
    def connection_count(self) -> int:
        """How many connections they have together."""
        return len(self._owners)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._users

    def members(self) -> tuple[Member, ...]:
        """Everybody who is here, the longest first."""
        return tuple(
            Member(user_id, len(each.connections), each.joined_at_ms)
            for user_id, each in self._users.items()
        )

    def user_of(self, connection_id: str) -> str | None:
        """Whose connection it is; None where it has not joined."""
        return self._owners.get(connection_id)

    def connections_of(self, user_id: str) -> tuple[str, ...]:
        """The connections that one user is here with."""
        participant = self._users.get(user_id)
        return () if participant is None else tuple(participant.connections)

    def check_capacity(self, user_id: str) -> None:
        """Refuse a user for whom there is no room."""
        if user_id not in self._users and 0 < self._max_participants <= len(self._users):
            raise session_full(self._max_participants)

    def join(self, connection_id: str, user_id: str, now_ms: int) -> PresenceJoin:
        """A connection comes in; one that is in already changes nothing."""
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

    def leave(self, connection_id: str) -> PresenceLeave | None:
        """A connection goes because it wants to; None where it was not here."""
        user_id = self._remove(connection_id)
        if user_id is None:
            return None
        announce = not self._users[user_id].connections
        if announce:
            del self._users[user_id]
        return PresenceLeave(user_id, len(self._users), announce, (connection_id,))

    def disconnect(self, connection_id: str, now: float) -> PresenceLeave | None:
        """A connection was cut off; its user has the grace time to come back."""
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
        """When the next user is given up who does not come back."""
        return next(iter(self._lost.values()), None)

    def pop_expired(self, now: float) -> list[PresenceLeave]:
        """The users whose grace time is over, each once; they are participants no longer."""
        departures = []
        while self._lost:
            user_id, until = next(iter(self._lost.items()))
            if until > now:
                break
            del self._lost[user_id]
            del self._users[user_id]
            departures.append(PresenceLeave(user_id, len(self._users), announce=True))
        return departures

    def kick(self, user_id: str) -> PresenceLeave | None:
        """The user goes at once with all connections; None where the user was not here."""
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
        """Everybody goes, and nobody is left to be told; the connections that were here."""
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
