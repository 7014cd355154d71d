"""Occupancy, wills and the queue of hooks for a single process, in memory."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable, Sequence

from client_sdk.contract import HookType
from server.core.counters import Counters
from server.core.occupancy.config import OccupancyConfig
from server.core.occupancy.events import EventQueue, HookEvent, QueuedEvent, change_event
from server.core.occupancy.subjects import (
    OccupancyChange,
    Subject,
    SubjectKind,
    user_subject,
)
from server.core.occupancy.table import OccupancyTable
from server.core.occupancy.wills import User, Will, Wills
from server.ports import Clock, ignore


class MemoryHookQueue:
    """Implements `HookQueue` for one process."""

    def __init__(self, clock: Clock, config: OccupancyConfig, counters: Counters) -> None:
        self._clock = clock
        self._counters = counters
        self._queued = config.queued
        self._events = EventQueue(
            max_events=config.max_events, keep_ms=int(config.keep_seconds * 1000)
        )
        self._appended = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._events)

    def wants(self, kind: HookType) -> bool:
        """Whether events of this type are queued."""
        return kind in self._queued

    def append(self, event: HookEvent) -> None:
        if self.wants(event.type):
            self._counters.add("hooks.dropped", len(self._events.append(event)))
            self._appended.set()

    async def take(self, limit: int) -> Sequence[QueuedEvent]:
        dropped = self._events.drop_old(int(self._clock.time() * 1000))
        self._counters.add("hooks.dropped", len(dropped))
        self._appended.clear()
        return self._events.first(limit)

    async def confirm(self, last: QueuedEvent) -> None:
        self._events.confirm(last.cursor)

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._appended.wait()


class MemoryOccupancy:
    """Implements `Occupancy` for one process; `enter` emits before it returns."""

    def __init__(self, clock: Clock, config: OccupancyConfig, queue: MemoryHookQueue) -> None:
        self._clock = clock
        self._queue = queue
        self._table = OccupancyTable(grace_seconds=config.grace_seconds)
        self._wills = Wills(config.wills)
        self._event_ids = itertools.count(1)
        self._on_change: Callable[[OccupancyChange], None] = ignore
        self._on_will_due: Callable[[Will], None] = ignore
        self._node = secrets.token_hex(6)

    @property
    def node(self) -> str:
        return self._node

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
            self._wills.on_back((subject.org, subject.name), resumed=resumed)
        if self._table.enter(subject):
            self._emit(subject, occupied=True)

    def leave(self, subject: Subject) -> None:
        now = self._clock.monotonic()
        self._table.leave(subject, now)
        if subject.kind is SubjectKind.USER:
            self._wills.on_left((subject.org, subject.name), now)

    async def put_will(self, will: Will) -> None:
        self._wills.put(will)
        if not self._table.is_used(user_subject(*will.user)):
            # The last connection ended while this was checked.
            self._wills.on_left(will.user, self._clock.monotonic())

    async def remove_will(self, user: User) -> None:
        self._wills.remove(user)

    async def settle_will(self, will: Will) -> None:
        kept = self._wills.get(will.user)
        if kept is not None and kept.id == will.id:
            self._wills.remove(will.user)

    def tick(self) -> None:
        now = self._clock.monotonic()
        for subject in self._table.pop_vacated(now):
            self._emit(subject, occupied=False)
        for will in self._wills.take_due(now):
            self._on_will_due(will)

    def _emit(self, subject: Subject, *, occupied: bool) -> None:
        change = OccupancyChange(subject, occupied, int(self._clock.time() * 1000))
        self._queue.append(change_event(change, self._next_id(), self._node))
        self._on_change(change)

    def _next_id(self) -> str:
        return f"{self._node}-{next(self._event_ids)}"
