"""Occupancy and wills over all nodes: Redis counts the nodes that use each subject."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

from server.brokers.redis.connection.client import evaluate
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.node_session import NodeSession
from server.brokers.redis.connection.replies import (
    Reply,
    as_bytes,
    as_bytes_list,
    as_int,
    as_list,
    as_mapping,
)
from server.brokers.redis.log.scripts import Script
from server.brokers.redis.occupancy.scripts import BEAT_SECONDS, OccupancyScripts
from server.brokers.redis.occupancy.updates import OccupancyUpdates
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.limits.shares import Level, ShareLimits, share_error
from server.core.occupancy.config import OccupancyConfig
from server.core.occupancy.subjects import OccupancyChange, Subject, user_subject
from server.core.occupancy.wills import User, Will
from server.ports import Clock, ignore
from server.tasks import TaskOwner, cancel_and_wait

logger = logging.getLogger(__name__)

_BATCH_SIZE = 100


class RedisOccupancy:
    """Implements `Occupancy`: a node shows four times a second that it lives.

    A node that falls silent is gone after 1.2 s: what only it used is left since then. If it was
    merely slow, it enters again, in time for the grace time.
    """

    def __init__(
        self,
        clock: Clock,
        counters: Counters,
        config: OccupancyConfig,
        session: NodeSession,
        tasks: TaskOwner,
        *,
        node: str,
        prefix: str,
        lease_seconds: float,
    ) -> None:
        self._clock = clock
        self._counters = counters
        self._shares = config.wills
        self._pipeline = session.pipeline
        self._tasks = tasks
        self._node = node
        self._scripts = OccupancyScripts.build(config, lease_seconds=lease_seconds)
        session.use_scripts(self._scripts.all())
        session.add_listener(self._on_session_beat)
        self._key = Keys(prefix).occupancy()
        self._lease = secrets.token_hex(6)
        # In real time: Redis measures it too.
        self.updates = OccupancyUpdates(_loop_time, max_events=config.max_events)
        self._next_beat_at = 0.0
        self._wakeup = asyncio.Event()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False
        self._on_change: Callable[[OccupancyChange], None] = ignore
        self._on_will_due: Callable[[Will], None] = ignore
        # What this node's feeds publish to, and whether Redis must still get it.
        self._feeds = b""
        self._must_announce = False
        self._on_dead: Callable[[list[bytes]], None] = ignore
        self._on_rejoined: Callable[[], None] = lambda: None
        # Set while events wait in Redis.
        self.has_events = asyncio.Event()
        self.waiting = 0

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
        self._task = self._tasks.keep(self._run, "floorcast-occupancy")

    async def stop(self) -> None:
        if self._task is None:
            return
        await cancel_and_wait(self._task)
        self._task = None
        with contextlib.suppress(FloorcastError, TimeoutError):
            async with asyncio.timeout(2 * BEAT_SECONDS):
                await self._flush()
                await self.run(self._scripts.retire, self._lease.encode())
        self._on_change = ignore
        self._on_will_due = ignore

    def enter(self, subject: Subject, *, resumed: bool = False) -> None:
        self.updates.enter(subject.key, resumed=resumed)
        self._wakeup.set()

    def leave(self, subject: Subject) -> None:
        self.updates.leave(subject.key)
        self._wakeup.set()

    def append(self, event: bytes, key: bytes) -> None:
        """Queue an event for the hooks, after what this node did before."""
        if not self.updates.append(event, key):
            self._counters.add("hooks.dropped")
        self._wakeup.set()

    def watch(
        self, on_dead: Callable[[list[bytes]], None], on_rejoined: Callable[[], None]
    ) -> None:
        """Call back with the feeds of a dead node and of the living, and after `announce` again."""
        self._on_dead = on_dead
        self._on_rejoined = on_rejoined

    def announce(self, feeds: bytes) -> None:
        """Record what this node's feeds publish to; empty for nothing."""
        self._feeds = feeds
        self._must_announce = True
        self._wakeup.set()

    async def put_will(self, will: Will) -> None:
        text = b"%d %b %b" % (will.after_ms, will.id.encode(), will.messages)
        async with self._lock:
            # The user's connection must be known, or its will would be due.
            await self._synchronize()
            reply = await self.run(self._scripts.put_will, user_subject(*will.user).key, text)
        if level := as_int(reply):
            raise _share_error(level, self._shares)

    async def remove_will(self, user: User) -> None:
        await self.run(self._scripts.forget_will, user_subject(*user).key, b"")

    async def settle_will(self, will: Will) -> None:
        key = user_subject(*will.user).key
        await self.run(self._scripts.forget_will, key, will.id.encode())

    async def last_seen(self, user: User) -> int | None:
        at_ms = as_bytes(await self.run(self._scripts.last_seen, user_subject(*user).key))
        return int(at_ms) if at_ms else None

    def tick(self) -> None:
        """Redis keeps the time."""

    async def run(self, script: Script, *arguments: bytes | int) -> Reply:
        """Run a script of occupancy; raises `FloorcastError` if Redis is unavailable."""
        return await self._pipeline.run(evaluate(script, [self._key], *arguments))

    @property
    def scripts(self) -> OccupancyScripts:
        """The scripts, which the queue uses too."""
        return self._scripts

    @property
    def lease(self) -> bytes:
        """The name under which Redis knows this node now."""
        return self._lease.encode()

    async def _run(self) -> None:
        while True:
            self._wakeup.clear()
            try:
                async with self._lock:
                    await self._synchronize()
                self._is_failing = False
            except FloorcastError as error:
                self._report(error)
                await asyncio.sleep(BEAT_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._next_beat_at - _loop_time())):
                    await self._wakeup.wait()

    async def _synchronize(self) -> None:
        """Show that this node lives if it is time, and send what is pending."""
        if self.updates.must_rejoin:
            # What this name has in Redis may be wrong: others will find it gone.
            self._lease = secrets.token_hex(6)
            self._next_beat_at = 0.0
        while self._next_beat_at <= _loop_time():
            await self._beat()
        await self._flush()

    async def _beat(self) -> None:
        sent_at = _loop_time()
        arguments = (self.lease, self._node.encode())
        reply = as_list(await self.run(self._scripts.beat, *arguments))
        status, more, dropped, vacated, due, waiting, feeds = reply
        self._next_beat_at = 0.0 if more else sent_at + BEAT_SECONDS
        if status == b"gone":
            self._lease = secrets.token_hex(6)
            return
        if status == b"new":
            self.updates.rejoin()
            if self._feeds and not self._must_announce:
                self._must_announce = True
                self._on_rejoined()
        self._counters.add("hooks.dropped", as_int(dropped))
        self._set_waiting(as_int(waiting))
        self._emit(as_bytes_list(vacated), occupied=False)
        for user, text in as_mapping(due).items():
            self._publish_will(user, text)
        if lost := as_bytes_list(feeds):
            self._on_dead(lost)

    async def _flush(self) -> None:
        updates = self.updates
        while updates:
            batch = updates.first(_BATCH_SIZE)
            arguments = (self.lease, self._node.encode(), *updates.arguments(batch))
            is_known, *reply = as_list(await self.run(self._scripts.apply, *arguments))
            if not is_known:
                self._beat_at_once()
                return
            updates.confirm(batch)
            dropped, occupied = reply
            self._counters.add("hooks.dropped", as_int(dropped))
            self._emit(as_bytes_list(occupied), occupied=True)
            self.has_events.set()
        if self._must_announce:
            self._must_announce = False
            await self._announce()

    async def _announce(self) -> None:
        try:
            is_known = await self.run(self._scripts.announce, self.lease, self._feeds)
        except FloorcastError:
            self._must_announce = True
            raise
        if not is_known:
            self._must_announce = True
            self._beat_at_once()

    def _beat_at_once(self) -> None:
        """The next beat finds out why Redis does not know this node."""
        self._next_beat_at = 0.0
        self._wakeup.set()

    def _set_waiting(self, count: int) -> None:
        self.waiting = count
        if count:
            self.has_events.set()

    def _emit(self, subjects: list[bytes], *, occupied: bool) -> None:
        ts_ms = int(self._clock.time() * 1000)
        for key in subjects:
            self._on_change(OccupancyChange(Subject.parse(key), occupied, ts_ms))

    def _publish_will(self, user: bytes, text: bytes) -> None:
        if not text:
            return
        after_ms, will_id, messages = text.split(b" ", 2)
        subject = Subject.parse(user)
        will = Will(subject.org, subject.name, will_id.decode(), int(after_ms), messages)
        self._on_will_due(will)

    def _on_session_beat(self, lost: bool) -> None:
        if lost:
            self.updates.must_rejoin = True
            self._wakeup.set()

    def _report(self, error: FloorcastError) -> None:
        self._next_beat_at = 0.0
        if not self._is_failing:
            self._is_failing = True
            logger.error(
                "occupancy, hooks and wills wait for Redis: if it is up, compare its ACL with "
                "docs/redis.md",
                extra={"error": error.message},
            )


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _share_error(level: int, limits: ShareLimits) -> FloorcastError:
    resource = "wills" if level % 2 else "bytes of wills"
    quota = limits.org if level <= 2 else limits.total
    limit = quota.count if level % 2 else quota.size_bytes
    return share_error(Level.ORG if level <= 2 else Level.SERVER, resource, limit)
