"""This node's sessions and connections, and their updates not written to Redis yet."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.core.deadlines import Deadlines
from server.core.sessions.events import SessionEvent
from server.core.sessions.records import SessionKey

SessionConnection = tuple[str, SessionKey]


@dataclass(slots=True, eq=False)
class LocalSession:
    """A session that this node maintains: its connections here, facts, mark and due time."""

    connections: dict[str, str] = field(default_factory=dict)
    facts: bytes = b""
    mark: bytes = b""
    # The revision of the last event, of which a gap before the next shows a loss; until the first
    # one that of the first join.
    revision: int = 0
    joined_revision: int = 0
    # The revisions that were read from Redis last: their events may still arrive.
    read_revisions: range = range(0)
    # Events after a gap, until the missed ones are read.
    held: list[SessionEvent] = field(default_factory=list)
    due_at: float | None = None
    # Whether it is registered in Redis, so that others take over if this node dies.
    is_registered: bool = False


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """A connection that rejoined or left; `user_id` is None if it was not a known member."""

    user_id: str | None
    rejoined: bool = False
    lost: bool = False


class PendingUpdates:
    """Does no I/O: the queue of updates by connection, and the sessions of this node."""

    def __init__(self) -> None:
        self._sessions: dict[SessionKey, LocalSession] = {}
        self._deadlines: Deadlines[SessionKey] = Deadlines()
        # The latest update per connection that is not in Redis yet.
        self.queued: dict[SessionConnection, PendingUpdate] = {}
        # Lost connections until the end of their grace period, to restore if Redis loses them.
        self._lost: OrderedDict[SessionConnection, tuple[str, float]] = OrderedDict()
        # Dropped sessions that are still registered in Redis.
        self.unregistered: dict[SessionKey, None] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: SessionKey) -> LocalSession | None:
        """The session, or None if this node does not maintain it."""
        return self._sessions.get(key)

    def get_or_create(self, key: SessionKey) -> LocalSession:
        """The session, created if this node does not maintain it yet."""
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = LocalSession()
            self.unregistered.pop(key, None)
        return session

    def all(self) -> tuple[tuple[SessionKey, LocalSession], ...]:
        """All sessions of this node."""
        return tuple(self._sessions.items())

    def to_register(self) -> tuple[tuple[SessionKey, LocalSession], ...]:
        """The sessions not registered in Redis yet."""
        return tuple(
            (key, session) for key, session in self._sessions.items() if not session.is_registered
        )

    def reset_registrations(self) -> None:
        """Mark all sessions as not registered."""
        for session in self._sessions.values():
            session.is_registered = False

    def set_due(self, key: SessionKey, due_at: float | None) -> None:
        """Set when a session must be checked for expiry; None for never."""
        if due_at is not None:
            self.get_or_create(key).due_at = due_at
            self._deadlines.set(key, due_at)
            return
        self._deadlines.cancel(key)
        session = self._sessions.get(key)
        if session is not None:
            session.due_at = None
            self.drop_idle(key)

    def drop_idle(self, key: SessionKey) -> None:
        """Drop a session without connections on this node and without a due time."""
        session = self._sessions.get(key)
        if session is not None and not session.connections and session.due_at is None:
            del self._sessions[key]
            self.unregistered[key] = None

    def pop_due(self, now: float) -> list[SessionKey]:
        """Remove and return the sessions due now."""
        while self._lost and next(iter(self._lost.values()))[1] <= now:
            self._lost.popitem(last=False)
        return self._deadlines.pop_due(now)

    # --- connections

    def add_connection(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        """Record that a connection is in a session."""
        self.get_or_create(key).connections[connection_id] = user_id
        self._lost.pop((connection_id, key), None)

    def remove_connection(self, connection_id: str, key: SessionKey) -> str | None:
        """Record that a connection is out; returns its user, or None if it was not in."""
        session = self._sessions.get(key)
        return None if session is None else session.connections.pop(connection_id, None)

    def has_members(self, key: SessionKey, *, but: str = "") -> bool:
        """Whether Redis should hold connections of this node, `but` one, in the session."""
        session = self._sessions.get(key)
        connections = () if session is None else session.connections
        return len(connections) > (but in connections) or any(key == each for _, each in self._lost)

    def clear_connections(self, key: SessionKey) -> None:
        """Remove all connections of a session."""
        session = self._sessions.get(key)
        if session is not None:
            session.connections.clear()

    def enqueue(self, connection: SessionConnection, update: PendingUpdate) -> None:
        """Queue an update; it replaces an older one of the same connection."""
        self.queued.pop(connection, None)
        self.queued[connection] = update

    def requeue(self, connection: SessionConnection, update: PendingUpdate) -> None:
        """Queue a failed update again, unless there is a newer one."""
        self.queued.setdefault(connection, update)

    def mark_lost(self, connection: SessionConnection, user_id: str, until: float) -> None:
        """Record a lost connection whose user may return until then."""
        self._lost[connection] = (user_id, until)

    def expected_connections(self) -> dict[SessionKey, dict[str, str]]:
        """The connections that Redis should hold by session, without the pending updates."""
        known = {key: dict(session.connections) for key, session in self._sessions.items()}
        for (connection_id, key), (user_id, _) in self._lost.items():
            known.get(key, {}).setdefault(connection_id, user_id)
        for (connection_id, key), update in self.queued.items():
            connections = known.get(key, {})
            if update.rejoined:
                connections.pop(connection_id, None)
            elif update.user_id is not None:
                connections.setdefault(connection_id, update.user_id)
        return known

    def requeue_lost(self, key: SessionKey, connections: Mapping[str, str]) -> None:
        """Queue the lost ones of restored connections again: their grace period restarts."""
        for connection_id, user_id in connections.items():
            if (connection_id, key) in self._lost:
                self.requeue((connection_id, key), PendingUpdate(user_id, lost=True))
