"""Occupancy, wills and the queue of hooks for a single process, in memory."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from client_sdk.contract import HookType
from server.core.counters import Counters
from server.core.occupancy.config import OccupancyConfig
from server.core.occupancy.events import EventQueue, HookEvent, QueuedEvent, change_event
from server.core.occupancy.last_seen import LastSeen
from server.core.occupancy.subjects import (
    OccupancyChange,
    Subject,
    SubjectKind,
    user_subject,
)
from server.core.occupancy.table import OccupancyTable
from server.core.occupancy.wills import User, Will, Wills
from server.ports import Clock, ignore


class OccupancyJournal(Protocol):
    """Writes what must outlive the process; nothing here waits or fails."""

    def put_event(self, event: QueuedEvent) -> None:
        """An event is queued."""

    def remove_events(self, events: Iterable[QueuedEvent]) -> None:
        """Events have arrived, or were dropped."""

    def put_subject(self, subject: Subject) -> None:
        """A subject is occupied."""

    def remove_subject(self, subject: Subject) -> None:
        """A subject is vacated."""

    def put_will(self, will: Will, gone_ms: int) -> None:
        """A user has a will; `gone_ms` is when the user's last connection ended, or 0."""

    def remove_will(self, user: User) -> None:
        """A user has no will any more."""

    def put_seen(self, user: User, at_ms: int) -> None:
        """A user's last connection has ended."""

    def remove_seen(self, user: User) -> None:
        """It is forgotten when a user was connected."""


class NoJournal:
    """Implements `OccupancyJournal` for what ends with the process."""

    def put_event(self, event: QueuedEvent) -> None:
        pass

    def remove_events(self, events: Iterable[QueuedEvent]) -> None:
        pass

    def put_subject(self, subject: Subject) -> None:
        pass

    def remove_subject(self, subject: Subject) -> None:
        pass

    def put_will(self, will: Will, gone_ms: int) -> None:
        pass

    def remove_will(self, user: User) -> None:
        pass

    def put_seen(self, user: User, at_ms: int) -> None:
        pass

    def remove_seen(self, user: User) -> None:
        pass


class MemoryHookQueue:
    """Implements `HookQueue` for one process."""

    def __init__(
        self,
        clock: Clock,
        config: OccupancyConfig,
        counters: Counters,
        journal: OccupancyJournal | None = None,
    ) -> None:
        self._clock = clock
        self._counters = counters
        self._queued = config.queued
        self._journal = journal or NoJournal()
        self._events = EventQueue(
            max_events=config.max_events, keep_ms=int(config.keep_seconds * 1000)
        )
        self._appended = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._events)

    def takes(self, kind: HookType) -> bool:
        """Whether a receiver wants events of this type."""
        return kind in self._queued

    def append(self, event: HookEvent) -> None:
        if not self.takes(event.type):
            return
        queued = self._events.append(event)
        if queued is not None:
            self._journal.put_event(queued)
            self._drop()
            self._appended.set()

    def restore(self, event: QueuedEvent) -> None:
        """Add an event that an earlier process has queued; before any of this one."""
        self._events.restore(event)

    async def take(self, limit: int) -> Sequence[QueuedEvent]:
        self._drop()
        self._appended.clear()
        return self._events.first(limit)

    async def confirm(self, last: QueuedEvent) -> None:
        self._journal.remove_events(self._events.confirm(last.cursor))

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._appended.wait()

    def _drop(self) -> None:
        dropped = self._events.drop(int(self._clock.time() * 1000))
        if dropped:
            self._counters.add("hooks.dropped", len(dropped))
            self._journal.remove_events(dropped)


class MemoryOccupancy:
    """Implements `Occupancy` for one process; `enter` emits before it returns."""

    def __init__(
        self,
        clock: Clock,
        config: OccupancyConfig,
        queue: MemoryHookQueue,
        journal: OccupancyJournal | None = None,
    ) -> None:
        self._clock = clock
        self._queue = queue
        self._journal = journal or NoJournal()
        self._table = OccupancyTable(grace_seconds=config.grace_seconds)
        self._wills = Wills(config.wills)
        self._seen = LastSeen(config)
        self._event_ids = itertools.count(1)
        self._on_change: Callable[[OccupancyChange], None] = ignore
        self._on_will_due: Callable[[Will], None] = ignore
        self._node = secrets.token_hex(6)

    @property
    def node(self) -> str:
        return self._node

    @property
    def has_wills(self) -> bool:
        """Whether any user has a will."""
        return len(self._wills) > 0

    @property
    def is_in_use(self) -> bool:
        """Whether anything is occupied."""
        return len(self._table) > 0

    async def start(
        self,
        on_change: Callable[[OccupancyChange], None],
        on_will_due: Callable[[Will], None],
    ) -> None:
        self._on_change = on_change
        self._on_will_due = on_will_due

    async def stop(self) -> None:
        self._on_change = ignore
        self._on_will_due = ignore

    def enter(self, subject: Subject, *, resumed: bool = False) -> None:
        if subject.kind is SubjectKind.USER:
            user = subject.org, subject.name
            self._return(user, resumed=resumed)
            if self._seen.forget(user):
                self._journal.remove_seen(user)
        if self._table.enter(subject):
            self._journal.put_subject(subject)
            self._emit(subject, occupied=True)

    def leave(self, subject: Subject) -> None:
        self._table.leave(subject, self._clock.monotonic())
        if subject.kind is SubjectKind.USER:
            user = subject.org, subject.name
            self._go(user)
            self._record_seen(user, self._now_ms())

    def restore_subject(self, subject: Subject) -> None:
        """Take a subject of an earlier process for left now."""
        self._table.enter(subject)
        self._table.leave(subject, self._clock.monotonic())

    def restore_seen(self, user: User, at_ms: int) -> None:
        """Keep until when a user was connected to an earlier process."""
        self._seen.record(user, at_ms)

    def restore_will(self, will: Will, gone_at: float) -> None:
        """Keep a will of an earlier process, whose user is gone since this (monotonic) time."""
        self._wills.put(will)
        self._wills.on_left(will.user, gone_at)

    async def put_will(self, will: Will) -> None:
        self._wills.put(will)
        if self._table.is_used(user_subject(*will.user)):
            self._journal.put_will(will, 0)
        else:
            # The last connection ended while this was checked.
            self._go(will.user)

    async def remove_will(self, user: User) -> None:
        if self._wills.remove(user) is not None:
            self._journal.remove_will(user)

    async def settle_will(self, will: Will) -> None:
        kept = self._wills.get(will.user)
        if kept is not None and kept.id == will.id:
            await self.remove_will(will.user)

    async def last_seen(self, user: User) -> int | None:
        return self._seen.get(user, self._now_ms())

    def tick(self) -> None:
        now = self._clock.monotonic()
        for subject in self._table.pop_vacated(now):
            self._journal.remove_subject(subject)
            self._emit(subject, occupied=False)
        for will in self._wills.take_due(now):
            self._on_will_due(will)

    def _record_seen(self, user: User, at_ms: int) -> None:
        """Record until when a user was connected."""
        self._journal.put_seen(user, at_ms)
        for forgotten in self._seen.record(user, at_ms):
            self._journal.remove_seen(forgotten)

    def _return(self, user: User, *, resumed: bool) -> None:
        if not self._wills.on_back(user, resumed=resumed):
            return
        will = self._wills.get(user)
        if will is None:
            self._journal.remove_will(user)
        else:
            self._journal.put_will(will, 0)

    def _go(self, user: User) -> None:
        self._wills.on_left(user, self._clock.monotonic())
        will = self._wills.get(user)
        if will is not None:
            self._journal.put_will(will, self._now_ms())

    def _emit(self, subject: Subject, *, occupied: bool) -> None:
        change = OccupancyChange(subject, occupied, self._now_ms())
        if self._queue.takes(change.type):
            event_id = f"{self._node}-{next(self._event_ids)}"
            self._queue.append(change_event(change, event_id, self._node))
        self._on_change(change)

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)
