"""Which connections of this node are in which sessions: who may speak and read there."""

from dataclasses import dataclass, field

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError
from server.core.sessions.events import News
from server.core.sessions.records import SessionKey


@dataclass(frozen=True, slots=True)
class Seat:
    """One connection in one session; it knows the session up to this revision."""

    user_id: str
    revision: int


@dataclass(slots=True, eq=False)
class _Room:
    seats: dict[str, Seat] = field(default_factory=dict)
    heard: int = 0


class Seats:
    """Both ways of looking at it; an operation costs only what it hands out."""

    def __init__(self, *, max_per_connection: int = 0) -> None:
        self._max_per_connection = max_per_connection
        self._rooms: dict[SessionKey, _Room] = {}
        self._connections: dict[str, dict[SessionKey, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, place: tuple[str, SessionKey]) -> bool:
        connection_id, key = place
        return key in self._connections.get(connection_id, ())

    def admit(self, connection_id: str, key: SessionKey) -> None:
        """Refuse a connection that is in as many other sessions as it may be."""
        mine = self._connections.get(connection_id, ())
        if 0 < self._max_per_connection <= len(mine) and key not in mine:
            raise LimitError(
                ErrorCode.LIMIT_TOPICS,
                f"a connection may be in {self._max_per_connection} sessions",
                details={"limit": self._max_per_connection},
            )

    def take(
        self, connection_id: str, user_id: str, key: SessionKey, revision: int | None = None
    ) -> None:
        """It is in; without a revision it knows what this node has heard."""
        room = self._rooms.setdefault(key, _Room())
        if connection_id not in room.seats:
            self._connections.setdefault(connection_id, {})[key] = None
            self._count += 1
        room.seats[connection_id] = Seat(user_id, room.heard if revision is None else revision)

    def leave(self, connection_id: str, key: SessionKey) -> bool:
        """It is out; False where it was."""
        mine = self._connections.get(connection_id, {})
        if key not in mine:
            return False
        del mine[key]
        if not mine:
            del self._connections[connection_id]
        room = self._rooms[key]
        del room.seats[connection_id]
        if not room.seats:
            del self._rooms[key]
        self._count -= 1
        return True

    def leave_all(self, connection_id: str) -> tuple[SessionKey, ...]:
        """It has ended; what it was in."""
        keys = self.of_connection(connection_id)
        for key in keys:
            self.leave(connection_id, key)
        return keys

    def of_connection(self, connection_id: str) -> tuple[SessionKey, ...]:
        """The sessions that one connection is in."""
        return tuple(self._connections.get(connection_id, ()))

    def is_empty(self, key: SessionKey) -> bool:
        """Whether nobody of this node is in a session."""
        return key not in self._rooms

    def hear(self, news: News) -> None:
        """So much is known here of a session."""
        room = self._rooms.get(news.key)
        if room is not None:
            room.heard = max(room.heard, news.revision)

    def before(self, news: News, *, of_user: bool = False) -> tuple[str, ...]:
        """The connections that were in when it happened; those of its user alone, where asked."""
        room = self._rooms.get(news.key)
        if room is None:
            return ()
        return tuple(
            connection_id
            for connection_id, seat in room.seats.items()
            if seat.revision < news.revision and (not of_user or seat.user_id == news.user_id)
        )

    def unconcerned(self, news: News) -> frozenset[str]:
        """Who is not told: the user whom it is about, and who came later and knows."""
        room = self._rooms.get(news.key)
        if room is None:
            return frozenset()
        return frozenset(
            connection_id
            for connection_id, seat in room.seats.items()
            if seat.user_id == news.user_id or seat.revision >= news.revision
        )
