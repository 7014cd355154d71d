"""The registry of sessions and their participants."""

from collections import Counter
from collections.abc import Iterator, Mapping

from server.core.deadlines import Deadlines
from server.core.sessions.presence import Presence, PresenceLeave
from server.core.sessions.records import (
    SessionJoin,
    SessionKey,
    SessionLeave,
    SessionRecord,
    SessionRules,
    kind_of,
    no_such_session,
    session_closed,
    too_many_sessions,
)


class Sessions:
    """The sessions of all orgs; an operation costs only its result."""

    def __init__(self, rules: SessionRules) -> None:
        self._rules = rules
        self._orgs: dict[str, dict[str, SessionRecord]] = {}
        # How many sessions each user has created. They outlive the creator's connection: without
        # this limit a user could use up all sessions by joining and leaving.
        self._created_counts: Counter[tuple[str, str]] = Counter()
        self._retention: Deadlines[SessionKey] = Deadlines()
        self._grace: Deadlines[SessionKey] = Deadlines()
        self._count = 0
        self._participant_count = 0
        self._membership_count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, org: str, session_id: str) -> SessionRecord | None:
        """A session, open or closed; None if it does not exist."""
        return self._orgs.get(org, {}).get(session_id)

    def get_open(self, org: str, session_id: str) -> SessionRecord:
        """An open session; raises `RequestError` if it does not exist or is closed."""
        record = self.get(org, session_id)
        if record is None:
            raise no_such_session()
        if record.closed:
            raise session_closed()
        return record

    def sessions_of(self, org: str) -> tuple[SessionRecord, ...]:
        """The sessions of one org."""
        return tuple(self._orgs.get(org, {}).values())

    def participant_count(self, org: str, session_id: str) -> int:
        """The number of users in a session; 0 if it does not exist."""
        record = self.get(org, session_id)
        return 0 if record is None else record.presence.participant_count

    def create(
        self,
        org: str,
        session_id: str,
        created_by: str,
        now: float,
        now_ms: int,
        metadata: Mapping[str, object] | None = None,
    ) -> tuple[SessionRecord, bool]:
        """Get or create an empty session; returns it, and if it was created."""
        record, created = self._find_or_create(org, session_id, created_by, now_ms, metadata)
        if created:
            self._retention.set(record.key, now + self._rules.retention_seconds)
        return record, created

    def join(
        self,
        connection_id: str,
        org: str,
        user_id: str,
        session_id: str,
        now_ms: int,
        metadata: Mapping[str, object] | None = None,
    ) -> SessionJoin:
        """Add a connection; the first creates the session. Raises before it changes anything."""
        if not self._rules.join_creates:
            self.get_open(org, session_id)
        record, created = self._find_or_create(org, session_id, user_id, now_ms, metadata)
        before = record.presence.connection_count
        arrival = record.presence.join(connection_id, user_id, now_ms)
        self._membership_count += record.presence.connection_count - before
        self._participant_count += arrival.announce
        self._retention.cancel(record.key)
        self._schedule_grace(record)
        return SessionJoin(record, arrival, created)

    def restore_members(
        self, record: SessionRecord, joined_at_ms: Mapping[str, int], now: float
    ) -> None:
        """Add the users of an earlier run to a new session; each has the grace period."""
        for user_id, at_ms in joined_at_ms.items():
            record.presence.restore(user_id, at_ms, now)
        self._participant_count += record.presence.participant_count
        if record.presence.participant_count:
            self._retention.cancel(record.key)
        self._schedule_grace(record)

    def records(self) -> Iterator[SessionRecord]:
        """All sessions."""
        for sessions in self._orgs.values():
            yield from sessions.values()

    def leave(
        self, connection_id: str, org: str, session_id: str, now: float
    ) -> SessionLeave | None:
        """Remove a connection that leaves deliberately; None if it has not joined."""
        record = self.get(org, session_id)
        return (
            None
            if record is None
            else self._leave_or_none(record, record.presence.leave(connection_id), now)
        )

    def disconnect(
        self, connection_id: str, org: str, session_id: str, now: float
    ) -> SessionLeave | None:
        """Remove a lost connection, whose user has the grace period; None if it has not joined."""
        record = self.get(org, session_id)
        return (
            None
            if record is None
            else self._leave_or_none(record, record.presence.disconnect(connection_id, now), now)
        )

    def expire_grace(self, now: float) -> list[SessionLeave]:
        """Remove and return the users whose grace period is over."""
        leaves = []
        for key in self._grace.pop_due(now):
            record = self._orgs[key[0]][key[1]]
            leaves += [
                self._record_leave(record, each, now) for each in record.presence.pop_expired(now)
            ]
        return leaves

    def kick(self, org: str, session_id: str, user_id: str, now: float) -> SessionLeave | None:
        """Remove a user from an open session; None if the user is not in it."""
        record = self.get_open(org, session_id)
        return self._leave_or_none(record, record.presence.kick(user_id), now)

    def close(self, org: str, session_id: str, now: float) -> tuple[str, ...]:
        """Close an open session and remove everybody; returns their connections."""
        record = self.get_open(org, session_id)
        record.closed = True
        self._participant_count -= record.presence.participant_count
        connections = record.presence.clear()
        self._membership_count -= len(connections)
        self._retention.set(record.key, now + self._rules.retention_seconds)
        self._schedule_grace(record)
        return connections

    def pop_expired(self, now: float) -> list[SessionRecord]:
        """Remove and return the sessions whose retention time is over."""
        records = []
        for org, session_id in self._retention.pop_due(now):
            record = self._orgs[org].pop(session_id)
            if not self._orgs[org]:
                del self._orgs[org]
            creator = (org, record.created_by)
            self._created_counts[creator] -= 1
            if not self._created_counts[creator]:
                del self._created_counts[creator]
            self._count -= 1
            records.append(record)
        return records

    def stats(self) -> dict[str, int]:
        """The counts for the statistics; `memberships` counts a connection once a session."""
        return {
            "sessions": self._count,
            "empty": len(self._retention),
            "participants": self._participant_count,
            "memberships": self._membership_count,
        }

    def _find_or_create(
        self,
        org: str,
        session_id: str,
        user_id: str,
        now_ms: int,
        metadata: Mapping[str, object] | None,
    ) -> tuple[SessionRecord, bool]:
        if self.get(org, session_id) is not None:
            return self.get_open(org, session_id), False
        kind = kind_of(session_id)
        if 0 < self._rules.max_sessions <= self._count:
            raise too_many_sessions()
        if 0 < self._rules.max_sessions_per_org <= len(self._orgs.get(org, ())):
            raise self._rules.too_many_of_org()
        if 0 < self._rules.max_sessions_per_user <= self._created_counts[org, user_id]:
            raise self._rules.too_many_created()
        presence = Presence(
            grace_seconds=self._rules.grace_seconds, max_participants=self._rules.max_participants
        )
        record = SessionRecord(
            org, session_id, kind, now_ms, user_id, presence, metadata=metadata or {}
        )
        self._orgs.setdefault(org, {})[session_id] = record
        self._created_counts[org, user_id] += 1
        self._count += 1
        return record, True

    def _leave_or_none(
        self, record: SessionRecord, leave: PresenceLeave | None, now: float
    ) -> SessionLeave | None:
        return None if leave is None else self._record_leave(record, leave, now)

    def _record_leave(
        self, record: SessionRecord, leave: PresenceLeave, now: float
    ) -> SessionLeave:
        self._membership_count -= len(leave.connections)
        self._participant_count -= leave.announce
        if not record.presence.participant_count:
            self._retention.set(record.key, now + self._rules.retention_seconds)
        self._schedule_grace(record)
        return SessionLeave(record, leave)

    def _schedule_grace(self, record: SessionRecord) -> None:
        """Set the deadline of the next grace period that ends."""
        when = record.presence.next_expiry()
        if when is None:
            self._grace.cancel(record.key)
        else:
            self._grace.set(record.key, when)
