"""The presence of a single process; its sessions outlive it, their members do not."""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import orjson

from server.brokers.file.database import Database
from server.brokers.file.schema import DROP_SESSIONS, SESSIONS
from server.brokers.file.store import FileStore
from server.brokers.memory.presence import MemoryPresence
from server.core.errors import FloorcastError, LimitError
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.participants import Participants, SessionSummary
from server.core.sessions.records import SessionKey, SessionRules
from server.ports import Clock, ignore

# Kept of each session, as with Redis.
_MAX_EVENTS = 128


@dataclass(slots=True, eq=False)
class _SessionsWritten:
    """The sessions in one commit; a failure makes them outdated again."""

    outdated: set[SessionKey]
    keys: Collection[SessionKey]

    def settle(self, failure: FloorcastError | None) -> None:
        if failure is not None:
            self.outdated.update(self.keys)

    def give_up(self, failure: FloorcastError) -> None:
        pass


class FilePresence:
    """Implements `PresenceManager` for one process; events are emitted before a call returns.

    Sessions are written soon after they were created or closed, always before a later message. Who
    is in a session is written when it stops: in the next run these users have the grace period, and
    their connections can be resumed for `resume_seconds`.
    """

    def __init__(
        self, clock: Clock, rules: SessionRules, store: FileStore, *, resume_seconds: float
    ) -> None:
        self._clock = clock
        self._rules = rules
        self._store = store
        self._memory = MemoryPresence(clock, rules)
        self._stored: set[SessionKey] = set()
        # Created, closed or deleted, and not written yet.
        self._outdated: set[SessionKey] = set()
        self._resume_seconds = resume_seconds
        self._resume_until = 0.0
        # The newest events of the sessions that had members when the last run stopped.
        self._events: dict[SessionKey, deque[SessionEvent]] = {}
        self._on_event: Callable[[SessionEvent], None] = ignore

    async def start(self, on_event: Callable[[SessionEvent], None]) -> None:
        self._memory = MemoryPresence(self._clock, self._rules)
        self._stored.clear()
        self._events.clear()
        self._on_event = on_event
        self._resume_until = self._clock.monotonic() + self._resume_seconds
        await self._store.run(self._restore)
        await self._memory.start(self._emit)

    async def stop(self) -> None:
        self._outdated.update(
            each.key for each in self._memory.sessions.records() if each.presence.participant_count
        )
        self._write(with_members=True)
        await self._memory.stop()

    @property
    def session_count(self) -> int:
        return self._memory.session_count

    async def join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None = None,
    ) -> Participants:
        participants = await self._memory.join(connection_id, user_id, key, metadata)
        if key not in self._stored:
            self._stored.add(key)
            self._outdated.add(key)
            self._write()
        return participants

    async def leave(self, connection_id: str, key: SessionKey) -> None:
        await self._memory.leave(connection_id, key)

    def remove(self, connection_id: str, key: SessionKey, *, lost: bool) -> None:
        self._memory.remove(connection_id, key, lost=lost)

    def can_rejoin(self, user_id: str, key: SessionKey) -> bool:
        return self._memory.can_rejoin(user_id, key)

    def rejoin(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        self._memory.rejoin(connection_id, user_id, key)

    async def kick(self, key: SessionKey, user_id: str) -> int:
        return await self._memory.kick(key, user_id)

    async def close(self, key: SessionKey) -> int:
        count = await self._memory.close(key)
        self._outdated.add(key)
        self._write()
        return count

    async def participants(self, key: SessionKey) -> Participants | None:
        return await self._memory.participants(key)

    async def sessions_of(self, org: str, after: str, limit: int) -> Sequence[SessionSummary]:
        return await self._memory.sessions_of(org, after, limit)

    async def events_since(self, key: SessionKey, revision: int) -> Sequence[SessionEvent] | None:
        # Without events since the last run, who was in the session then is unknown.
        events, record = self._events.get(key), self._memory.sessions.get(*key)
        if events is None or record is None:
            return None
        known_from = events[0].revision - 1 if events else record.revision
        if not known_from <= revision <= record.revision:
            return None
        return [each for each in events if each.revision > revision]

    async def signal(self, key: SessionKey, connection_id: str, user_id: str, data: bytes) -> None:
        await self._memory.signal(key, connection_id, user_id, data)

    async def sweep(self) -> Collection[SessionKey]:
        expired = await self._memory.sweep()
        self._stored.difference_update(expired)
        self._outdated.update(expired)
        if self._events and self._clock.monotonic() >= self._resume_until:
            self._events.clear()
        # Also what an earlier commit could not write.
        self._write()
        return expired

    def _emit(self, event: SessionEvent) -> None:
        if event.revision and event.key in self._events:
            self._events[event.key].append(event)
        if event.kind is SessionEventKind.EXPIRED:
            self._events.pop(event.key, None)
        self._on_event(event)

    def _write(self, *, with_members: bool = False) -> None:
        if not self._outdated:
            return
        keys = tuple(self._outdated)
        self._outdated.clear()
        for key in keys:
            record = self._memory.sessions.get(*key)
            if record is None:
                self._store.add(DROP_SESSIONS, key)
                continue
            members = None
            if with_members and record.presence.participant_count:
                members = orjson.dumps(
                    {each.user_id: each.joined_at_ms for each in record.presence.members()}
                )
            self._store.add(
                SESSIONS,
                (
                    *(*key, record.created_by, record.created_at_ms, record.closed),
                    *(orjson.dumps(dict(record.metadata)), record.revision, members),
                ),
            )
        self._store.add_waiter(_SessionsWritten(self._outdated, keys))

    def _restore(self, database: Database) -> None:
        if database.was_killed:
            _clear_members(database)
        database.read(
            "SELECT org, id, created_by, created_at_ms, closed, metadata, revision, members"
            " FROM sessions ORDER BY created_at_ms",
            self._restore_session,
        )
        # If this run is killed, they are not those of its end.
        _clear_members(database)

    def _restore_session(
        self,
        org: str,
        session_id: str,
        created_by: str,
        at_ms: int,
        closed: int,
        metadata: bytes,
        revision: int | None,
        members: bytes | None,
    ) -> None:
        sessions, now = self._memory.sessions, self._clock.monotonic()
        key = (org, session_id)
        try:
            record, _ = sessions.create(
                org, session_id, created_by, now, at_ms, orjson.loads(metadata)
            )
        except LimitError:
            # The limits have become lower: the newest sessions go.
            self._outdated.add(key)
            return
        self._stored.add(key)
        record.revision = revision or 0
        if closed:
            sessions.close(org, session_id, now)
        elif members is not None:
            sessions.restore_members(record, orjson.loads(members), now)
            self._events[key] = deque(maxlen=_MAX_EVENTS)


def _clear_members(database: Database) -> None:
    database.connection.execute("UPDATE sessions SET members = NULL WHERE members IS NOT NULL")
