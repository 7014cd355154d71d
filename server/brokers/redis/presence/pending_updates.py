"""What a node owes Redis: the sessions it looks after, and what it could not say yet."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.core.deadlines import Deadlines
from server.core.sessions.records import SessionKey

SessionConnection = tuple[str, SessionKey]


@dataclass(slots=True, eq=False)
class LocalSession:
    """One session that this node looks after: its connections there, and what it is."""

    connections: dict[str, str] = field(default_factory=dict)
    facts: bytes = b""
    mark: bytes = b""
    due_at: float | None = None
    # Whether Redis knows of it, so that others take over when this node dies.
    is_registered: bool = False


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """A connection is back, or has gone; its user where it was known to be in."""

    user_id: str | None
    rejoined: bool = False
    lost: bool = False


class PendingUpdates:
    """No I/O: it is told what was said and what happened, and tells what is to be said."""

    def __init__(self) -> None:
        self._sessions: dict[SessionKey, LocalSession] = {}
        self._deadlines: Deadlines[SessionKey] = Deadlines()
        # The last word on each connection that Redis has not heard yet.
        self.updates: dict[SessionConnection, PendingUpdate] = {}
        # Those who were cut off, until their users are given up: if Redis forgets them meanwhile,
        # it has to be told once more.
        self._lost: OrderedDict[SessionConnection, tuple[str, float]] = OrderedDict()
        # Not looked after any more, which Redis does not know yet.
        self.unregistered: dict[SessionKey, None] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: SessionKey) -> LocalSession | None:
        """One that is looked after here."""
        return self._sessions.get(key)

    def get_or_create(self, key: SessionKey) -> LocalSession:
        """Look after a session."""
        duty = self._sessions.get(key)
        if duty is None:
            duty = self._sessions[key] = LocalSession()
            self.unregistered.pop(key, None)
        return duty

    def all(self) -> tuple[tuple[SessionKey, LocalSession], ...]:
        """Everything that is looked after here."""
        return tuple(self._sessions.items())

    def to_register(self) -> tuple[tuple[SessionKey, LocalSession], ...]:
        """Those that Redis does not know of yet."""
        return tuple((key, duty) for key, duty in self._sessions.items() if not duty.is_registered)

    def reset_registrations(self) -> None:
        """Redis knows of none any more."""
        for duty in self._sessions.values():
            duty.is_registered = False

    def set_due(self, key: SessionKey, due_at: float | None) -> None:
        """When it has to be looked at again, if ever."""
        if due_at is not None:
            self.get_or_create(key).due_at = due_at
            self._deadlines.set(key, due_at)
            return
        self._deadlines.cancel(key)
        duty = self._sessions.get(key)
        if duty is not None:
            duty.due_at = None
            self.drop_idle(key)

    def drop_idle(self, key: SessionKey) -> None:
        """Look after it no more, where nobody of here is in it and nothing is due."""
        duty = self._sessions.get(key)
        if duty is not None and not duty.connections and duty.due_at is None:
            del self._sessions[key]
            self.unregistered[key] = None

    def pop_due(self, now: float) -> list[SessionKey]:
        """The sessions that have to be looked at now."""
        while self._lost and next(iter(self._lost.values()))[1] <= now:
            self._lost.popitem(last=False)
        return self._deadlines.pop_due(now)

    # --- connections

    def add_connection(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        """It is in."""
        self.get_or_create(key).connections[connection_id] = user_id
        self._lost.pop((connection_id, key), None)

    def remove_connection(self, connection_id: str, key: SessionKey) -> str | None:
        """It is out; whose it was."""
        duty = self._sessions.get(key)
        return None if duty is None else duty.connections.pop(connection_id, None)

    def clear_connections(self, key: SessionKey) -> None:
        """Nobody of here is in it any more."""
        duty = self._sessions.get(key)
        if duty is not None:
            duty.connections.clear()

    def enqueue(self, connection: SessionConnection, update: PendingUpdate) -> None:
        """It has to be said, and replaces what was to be said before."""
        self.updates.pop(connection, None)
        self.updates[connection] = update

    def requeue(self, connection: SessionConnection, update: PendingUpdate) -> None:
        """It could not be said; something newer holds."""
        self.updates.setdefault(connection, update)

    def mark_lost(self, connection: SessionConnection, user_id: str, until: float) -> None:
        """Its user may be back until then."""
        self._lost[connection] = (user_id, until)

    def expected_connections(self) -> dict[SessionKey, dict[str, str]]:
        """Whoever Redis should know to be in a session, or to have been until a moment ago."""
        known = {key: dict(duty.connections) for key, duty in self._sessions.items()}
        for (connection_id, key), (user_id, _) in self._lost.items():
            known.get(key, {}).setdefault(connection_id, user_id)
        for (connection_id, key), debt in self.updates.items():
            there = known.get(key, {})
            if debt.rejoined:
                there.pop(connection_id, None)
            elif debt.user_id is not None:
                there.setdefault(connection_id, debt.user_id)
        return known

    def requeue_lost(self, key: SessionKey, connections: Mapping[str, str]) -> None:
        """Redis had forgotten them and knows them to be in: who was cut off is waited for anew."""
        for connection_id, user_id in connections.items():
            if (connection_id, key) in self._lost:
                self.requeue((connection_id, key), PendingUpdate(user_id, lost=True))
