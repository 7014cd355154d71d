"""The events that hooks receive, and a bounded queue of them."""

import itertools
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from client_sdk.contract import HookType
from server.core.occupancy.subjects import OccupancyChange

_MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class HookEvent:
    """One event; `fields` name its subject and say more about it."""

    id: str
    type: HookType
    ts_ms: int
    node: str
    fields: Mapping[str, object] = field(repr=False)
    # Nodes that notice the same give it the same key: it is queued once.
    once: str = ""

    def body(self) -> dict[str, object]:
        """The event as a receiver gets it."""
        return {
            "id": self.id,
            "type": self.type.value,
            "ts": self.ts_ms,
            "node": self.node,
            **self.fields,
        }


def change_event(change: OccupancyChange, event_id: str, node: str) -> HookEvent:
    """The event of a subject that became occupied or vacated."""
    return HookEvent(event_id, change.type, change.ts_ms, node, change.subject.fields())


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """An event in a queue; `cursor` confirms it and all before it."""

    cursor: str
    ts_ms: int
    body: Mapping[str, object] = field(repr=False)


class EventQueue:
    """Events in order; beyond `max_events`, and after `keep_ms`, the oldest are dropped."""

    def __init__(self, *, max_events: int, keep_ms: int) -> None:
        self._max_events = max_events
        self._keep_ms = keep_ms
        self._events: deque[QueuedEvent] = deque()
        self._cursors = itertools.count(1)
        self._once: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._events)

    def append(self, event: HookEvent) -> Sequence[QueuedEvent]:
        """Add an event; returns the events that it displaces."""
        if event.once and not self._remember(event.once):
            return ()
        self.restore(QueuedEvent(str(next(self._cursors)), event.ts_ms, event.body()))
        if len(self._events) <= self._max_events:
            return ()
        return (self._events.popleft(),)

    def restore(self, queued: QueuedEvent) -> None:
        """Add an event that another process has queued."""
        self._events.append(queued)
        self._cursors = itertools.count(int(queued.cursor) + 1)

    def drop_old(self, now_ms: int) -> Sequence[QueuedEvent]:
        """Remove and return the events that are too old to be of use."""
        old = []
        while self._events and self._events[0].ts_ms + self._keep_ms < now_ms:
            old.append(self._events.popleft())
        return old

    def first(self, limit: int) -> list[QueuedEvent]:
        """The oldest events."""
        return list(itertools.islice(self._events, limit))

    def last(self) -> QueuedEvent:
        """The newest event; raises `IndexError` if there is none."""
        return self._events[-1]

    def confirm(self, cursor: str) -> Sequence[QueuedEvent]:
        """Remove and return the events up to this one."""
        confirmed = []
        while self._events and int(self._events[0].cursor) <= int(cursor):
            confirmed.append(self._events.popleft())
        return confirmed

    def _remember(self, key: str) -> bool:
        if key in self._once:
            return False
        self._once[key] = None
        if len(self._once) > _MAX_REMEMBERED:
            self._once.popitem(last=False)
        return True
