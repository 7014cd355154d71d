"""Occupancy, wills and the queue of hooks of a single process, kept in its data file."""

import logging
import math
from collections.abc import Callable, Collection, Iterable

import orjson

from server.brokers.file.database import Database
from server.brokers.file.schema import KEPT
from server.brokers.file.store import FileStore
from server.brokers.memory.occupancy import MemoryHookQueue, MemoryOccupancy
from server.core.counters import Counters
from server.core.errors import LimitError
from server.core.occupancy.config import OccupancyConfig
from server.core.occupancy.events import QueuedEvent
from server.core.occupancy.subjects import OccupancyChange, Subject, SubjectKind, user_subject
from server.core.occupancy.wills import User, Will
from server.ports import Clock, HookQueue, Occupancy

logger = logging.getLogger(__name__)

# Kinds of kept values. Their time ends in the year 2200: they are removed by name.
_EVENTS, _SUBJECTS, _WILLS, _ALIVE = "hook.events", "occupied", "wills", "alive"
# These have a time of their own.
_SEEN = "seen"
_NEVER_MS = 7_258_118_400_000
# How exactly a restart knows since when the users of a crashed process are gone: those with a will,
# and others.
_ALIVE_SECONDS = 0.5
_ALIVE_SECONDS_WITHOUT_WILLS = 10.0
# Users of an earlier process have at least so long to come back.
_RETURN_SECONDS = 1.2


class FileOccupancyJournal:
    """Implements `OccupancyJournal`: writes with the next commit."""

    def __init__(self, store: FileStore, config: OccupancyConfig) -> None:
        self._store = store
        self._seen_ms = int(config.seen_seconds * 1000)

    def put_event(self, event: QueuedEvent) -> None:
        self._put(_EVENTS, event.cursor, orjson.dumps([event.ts_ms, event.body]))

    def remove_events(self, events: Iterable[QueuedEvent]) -> None:
        for event in events:
            self._remove(_EVENTS, event.cursor)

    def put_subject(self, subject: Subject) -> None:
        self._put(_SUBJECTS, subject.key.decode(), b"")

    def remove_subject(self, subject: Subject) -> None:
        self._remove(_SUBJECTS, subject.key.decode())

    def put_will(self, will: Will, gone_ms: int) -> None:
        body = b"%d %d %b %b" % (gone_ms, will.after_ms, will.id.encode(), will.messages)
        self._put(_WILLS, user_subject(*will.user).key.decode(), body)

    def remove_will(self, user: User) -> None:
        self._remove(_WILLS, user_subject(*user).key.decode())

    def put_seen(self, user: User, at_ms: int) -> None:
        key, until_ms = user_subject(*user).key.decode(), at_ms + self._seen_ms
        self._store.add(KEPT, (_SEEN, key, until_ms, b"%d" % at_ms))

    def remove_seen(self, user: User) -> None:
        self._remove(_SEEN, user_subject(*user).key.decode())

    def put_alive(self, now_ms: int) -> None:
        """Record that the process lives."""
        self._put(_ALIVE, "", b"%d" % now_ms)

    def _put(self, kind: str, key: str, value: bytes) -> None:
        self._store.add(KEPT, (kind, key, _NEVER_MS, value))

    def _remove(self, kind: str, key: str) -> None:
        # A row whose time is over, and not a deletion: the order of the writes stays.
        self._store.add(KEPT, (kind, key, 0, b""))


class FileOccupancy:
    """Implements `Occupancy` for one process; what was in use when it ended counts as left."""

    def __init__(
        self,
        clock: Clock,
        store: FileStore,
        journal: FileOccupancyJournal,
        queue: MemoryHookQueue,
        memory: MemoryOccupancy,
    ) -> None:
        self._clock = clock
        self._store = store
        self._journal = journal
        self._queue = queue
        self._memory = memory
        self._alive_at = -math.inf
        # Memory does the rest; each of its changes is journaled.
        self.enter, self.leave = memory.enter, memory.leave
        self.remove_will, self.settle_will = memory.remove_will, memory.settle_will
        self.last_seen = memory.last_seen

    @property
    def node(self) -> str:
        return self._memory.node

    async def start(
        self,
        on_change: Callable[[OccupancyChange], None],
        on_will_due: Callable[[Will], None],
    ) -> None:
        now_ms = self._now_ms()
        rows = await self._store.run(_read)
        seen = await self._store.run(lambda database: _read_seen(database, now_ms))
        for event in sorted(_events(rows), key=lambda each: int(each.cursor)):
            self._queue.restore(event)
        alive_ms = int(rows[_ALIVE][0][1]) if rows[_ALIVE] else now_ms
        for key, _ in rows[_SUBJECTS]:
            self._restore_subject(Subject.parse(key.encode()), alive_ms, seen)
        for key, at_ms in seen.items():
            user = Subject.parse(key.encode())
            self._memory.restore_seen((user.org, user.name), int(at_ms))
        for key, body in rows[_WILLS]:
            self._restore_will(Subject.parse(key.encode()), body, alive_ms)
        await self._memory.start(on_change, on_will_due)

    async def stop(self) -> None:
        await self._memory.stop()

    async def put_will(self, will: Will) -> None:
        self._store.check_room()
        await self._memory.put_will(will)
        self._journal.put_alive(self._now_ms())
        await self._store.commit()

    def tick(self) -> None:
        self._memory.tick()
        now = self._clock.monotonic()
        seconds = _ALIVE_SECONDS if self._memory.has_wills else _ALIVE_SECONDS_WITHOUT_WILLS
        is_needed = self._memory.has_wills or self._memory.is_in_use
        if is_needed and now >= self._alive_at + seconds:
            self._alive_at = now
            self._journal.put_alive(self._now_ms())

    def _restore_subject(self, subject: Subject, alive_ms: int, seen: Collection[str]) -> None:
        self._memory.restore_subject(subject)
        if subject.kind is SubjectKind.USER and subject.key.decode() not in seen:
            user = subject.org, subject.name
            self._journal.put_seen(user, alive_ms)
            self._memory.restore_seen(user, alive_ms)

    def _restore_will(self, user: Subject, body: bytes, alive_ms: int) -> None:
        gone, after, will_id, messages = body.split(b" ", 3)
        will = Will(user.org, user.name, will_id.decode(), int(after), messages)
        due_ms = (int(gone) or alive_ms) + will.after_ms
        wait_seconds = max(_RETURN_SECONDS, (due_ms - self._now_ms()) / 1000)
        due_at = self._clock.monotonic() + wait_seconds
        try:
            self._memory.restore_will(will, due_at - will.after_ms / 1000)
        except LimitError as error:
            # The settings allow less than before.
            logger.error("a will is not kept: %s", error.message, extra={"org": will.org})
            self._journal.remove_will(will.user)

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)


Rows = dict[str, list[tuple[str, bytes]]]


def _read(database: Database) -> Rows:
    return {
        kind: database.connection.execute(
            "SELECT key, value FROM kept WHERE kind = ? AND until_ms = ?", (kind, _NEVER_MS)
        ).fetchall()
        for kind in (_EVENTS, _SUBJECTS, _WILLS, _ALIVE)
    }


def _read_seen(database: Database, now_ms: int) -> dict[str, bytes]:
    rows = database.connection.execute(
        "SELECT key, value FROM kept WHERE kind = ? AND until_ms > ? ORDER BY until_ms",
        (_SEEN, now_ms),
    )
    return dict(rows.fetchall())


def _events(rows: Rows) -> Iterable[QueuedEvent]:
    for cursor, value in rows[_EVENTS]:
        ts_ms, body = orjson.loads(value)
        yield QueuedEvent(cursor, ts_ms, body)


def file_occupancy(
    clock: Clock, store: FileStore, config: OccupancyConfig, counters: Counters
) -> tuple[Occupancy, HookQueue]:
    """Occupancy and the queue of hooks in one data file."""
    journal = FileOccupancyJournal(store, config)
    queue = MemoryHookQueue(clock, config, counters, journal)
    memory = MemoryOccupancy(clock, config, queue, journal)
    return FileOccupancy(clock, store, journal, queue, memory), queue
