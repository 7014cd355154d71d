"""The queue of hooks over all nodes: a stream in Redis, which one node at a time sends."""

import asyncio
import contextlib
from collections.abc import Sequence

import orjson

from client_sdk.contract import HookType
from server.brokers.redis.connection.replies import (
    Reply,
    as_bytes,
    as_int,
    as_list,
    as_mapping,
)
from server.brokers.redis.occupancy.occupancy import RedisOccupancy
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.occupancy.events import HookEvent, QueuedEvent, change_event
from server.core.occupancy.subjects import OccupancyChange, Subject


class RedisHookQueue:
    """Implements `HookQueue`; a node that dies while it sends is replaced after 10 s."""

    def __init__(
        self, occupancy: RedisOccupancy, queued: frozenset[HookType], counters: Counters
    ) -> None:
        self._occupancy = occupancy
        self._queued = queued
        self._counters = counters

    @property
    def waiting(self) -> int:
        return self._occupancy.waiting

    def append(self, event: HookEvent) -> None:
        if event.type in self._queued:
            self._occupancy.append(orjson.dumps(event.body()), event.once.encode())

    async def take(self, limit: int) -> Sequence[QueuedEvent]:
        occupancy = self._occupancy
        occupancy.has_events.clear()
        try:
            reply = await occupancy.run(occupancy.scripts.take, occupancy.lease, limit)
        except FloorcastError:
            return ()
        dropped, found = as_list(reply)
        self._counters.add("hooks.dropped", as_int(dropped))
        return [_decode(*as_list(each)) for each in as_list(found)]

    async def confirm(self, last: QueuedEvent) -> None:
        occupancy = self._occupancy
        ts_ms, number = last.cursor.split("-")
        following = f"{ts_ms}-{int(number) + 1}".encode()
        # If this is lost, the events are sent again.
        with contextlib.suppress(FloorcastError):
            reply = await occupancy.run(occupancy.scripts.confirm, occupancy.lease, following)
            occupancy.waiting = as_int(reply)

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._occupancy.has_events.wait()


def _decode(cursor: Reply, flat: Reply) -> QueuedEvent:
    event_id, fields = as_bytes(cursor).decode(), as_mapping(flat)
    ts_ms = int(event_id.partition("-")[0])
    if b"b" in fields:
        return QueuedEvent(event_id, ts_ms, orjson.loads(fields[b"b"]))
    subject = Subject.parse(fields[b"s"])
    change = OccupancyChange(subject, fields[b"o"] == b"1", int(fields[b"t"]))
    event = change_event(change, event_id, fields[b"n"].decode())
    return QueuedEvent(event_id, ts_ms, event.body())
