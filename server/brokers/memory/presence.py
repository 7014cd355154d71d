"""The presence of a single process, in memory."""

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence

from server.core.errors import FloorcastError
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.participants import Participants, SessionSummary
from server.core.sessions.records import (
    SessionKey,
    SessionLeave,
    SessionRecord,
    SessionRules,
    not_in_session,
)
from server.core.sessions.registry import Sessions
from server.ports import Clock, ignore


class MemoryPresence:
    """Implements `PresenceManager` for one process; events are emitted before a call returns."""

    def __init__(self, clock: Clock, rules: SessionRules) -> None:
        self._clock = clock
        self._on_event: Callable[[SessionEvent], None] = ignore
        self.sessions = Sessions(rules)

    async def start(self, on_event: Callable[[SessionEvent], None]) -> None:
        self._on_event = on_event

    async def stop(self) -> None:
        self._on_event = ignore

    @property
    def session_count(self) -> int:
        return len(self.sessions)

    async def join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None = None,
    ) -> Participants:
        return _participants_of(self._join(connection_id, user_id, key, metadata))

    async def leave(self, connection_id: str, key: SessionKey) -> None:
        self.remove(connection_id, key, lost=False)

    def remove(self, connection_id: str, key: SessionKey, *, lost: bool) -> None:
        remove = self.sessions.disconnect if lost else self.sessions.leave
        left = remove(connection_id, *key, self._clock.monotonic())
        if left is not None:
            self._emit_left(left)

    def can_rejoin(self, user_id: str, key: SessionKey) -> bool:
        try:
            self.sessions.get_open(*key).presence.check_capacity(user_id)
        except FloorcastError:
            return False
        return True

    def rejoin(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        if self.can_rejoin(user_id, key):
            self._join(connection_id, user_id, key, None)
        else:
            refused = SessionEvent(
                key,
                SessionEventKind.REFUSED,
                0,
                self._now_ms(),
                user_id,
                connection_id=connection_id,
            )
            self._on_event(refused)

    async def kick(self, key: SessionKey, user_id: str) -> int:
        left = self.sessions.kick(*key, user_id, self._clock.monotonic())
        if left is None:
            record = self.sessions.get_open(*key)
            self._emit(record, SessionEventKind.BARRED, user_id, record.presence.participant_count)
            raise not_in_session()
        departure = left.leave
        self._emit(left.record, SessionEventKind.KICKED, user_id, departure.participant_count)
        return len(departure.connections)

    async def close(self, key: SessionKey) -> int:
        connections = self.sessions.close(*key, self._clock.monotonic())
        self._emit(self.sessions.get(*key), SessionEventKind.CLOSED)
        return len(connections)

    async def participants(self, key: SessionKey) -> Participants | None:
        record = self.sessions.get(*key)
        return None if record is None else _participants_of(record)

    async def sessions_of(self, org: str, after: str, limit: int) -> Sequence[SessionSummary]:
        later = (each for each in self.sessions.sessions_of(org) if each.session_id > after)
        records = heapq.nsmallest(limit, later, key=lambda each: each.session_id)
        return [
            SessionSummary(
                each.session_id, each.presence.participant_count, each.closed, each.metadata
            )
            for each in records
        ]

    async def events_since(self, key: SessionKey, revision: int) -> Sequence[SessionEvent] | None:
        # There is no other node whose connections could be missing any.
        return None

    async def signal(self, key: SessionKey, connection_id: str, user_id: str, data: bytes) -> None:
        self._on_event(
            SessionEvent(
                key,
                SessionEventKind.SIGNAL,
                0,
                self._now_ms(),
                user_id,
                connection_id=connection_id,
                data=data,
            )
        )

    async def sweep(self) -> Collection[SessionKey]:
        now = self._clock.monotonic()
        for left in self.sessions.expire_grace(now):
            self._emit_left(left)
        expired = self.sessions.pop_expired(now)
        for record in expired:
            self._emit(record, SessionEventKind.EXPIRED)
        return [record.key for record in expired]

    def _join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None,
    ) -> SessionRecord:
        org, session_id = key
        joined = self.sessions.join(
            connection_id, org, user_id, session_id, self._now_ms(), metadata
        )
        arrival = joined.join
        if arrival.announce:
            self._emit(joined.record, SessionEventKind.JOINED, user_id, arrival.participant_count)
        return joined.record

    def _emit_left(self, left: SessionLeave) -> None:
        departure = left.leave
        if departure.announce:
            self._emit(
                left.record, SessionEventKind.LEFT, departure.user_id, departure.participant_count
            )

    def _emit(
        self,
        record: SessionRecord | None,
        kind: SessionEventKind,
        user_id: str = "",
        count: int = 0,
    ) -> None:
        assert record is not None
        record.revision += 1
        self._on_event(
            SessionEvent(record.key, kind, record.revision, self._now_ms(), user_id, count)
        )

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)


def _participants_of(record: SessionRecord) -> Participants:
    return Participants(record.revision, record.presence.members(), record.closed, record.metadata)
