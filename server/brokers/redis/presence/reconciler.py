"""Looks after the sessions of one node in Redis, and after those of nodes that have died."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from server.brokers.redis.connection.liveness import Liveness, NodeStatus
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.presence.calls import SessionCalls
from server.brokers.redis.presence.codec import SessionReply, creator_of, decode_reply
from server.brokers.redis.presence.pending_updates import (
    LocalSession,
    PendingUpdate,
    PendingUpdates,
    SessionConnection,
)
from server.core.errors import FloorcastError
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.records import SessionKey, SessionRules, key_of_channel
from server.ports import Clock

T = TypeVar("T")

# Before what has failed is tried again.
RETRY_SECONDS = 0.5
# So many sessions, or connections, at once.
_BATCH_SIZE = 256


class Reconciler:
    """Says what Redis has to know as soon as it can be told; whatever fails is tried again."""

    def __init__(
        self,
        pipeline: Pipeline,
        calls: SessionCalls,
        updates: PendingUpdates,
        liveness: Liveness,
        clock: Clock,
        rules: SessionRules,
        on_event: Callable[[SessionEvent], None],
    ) -> None:
        self._pipeline = pipeline
        self._calls = calls
        self._updates = updates
        self._clock = clock
        self._rules = rules
        self._on_event = on_event
        self.liveness = liveness
        self._next_beat = self._retry_at = 0.0
        # Whether Redis may think otherwise of who is in; and that others have given this node up.
        self._suspect = False
        self._declared_dead = False
        # Whose sessions were taken over by this node.
        self._taken_over: set[bytes] = set()
        self.session_count = 0

    async def start(self) -> None:
        """Give the first sign of life."""
        await self._beat()

    async def stop(self, timeout_seconds: float) -> None:
        """Say what is still to be said, and let others take over at once."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._flush()
                await self.liveness.retire()
        except (FloorcastError, TimeoutError):
            # They find out by its lease.
            pass

    def suspect(self) -> None:
        """Something of what happened may not have been heard."""
        self._suspect = True
        self.liveness.suspect()

    def retry_now(self) -> None:
        """Redis has gone, or is back: see at once what it knows."""
        self._next_beat = self._retry_at = 0.0

    def record(self, key: SessionKey, reply: SessionReply) -> None:
        """This is what a session is."""
        duty = self._updates.get_or_create(key)
        duty.facts, duty.mark = reply.facts, reply.mark
        self.set_due(key, reply.due_ms)

    def set_due(self, key: SessionKey, due_ms: int) -> None:
        """When it has to be looked at again; 0 is never."""
        wait = (due_ms - self._calls.now_ms()) / 1000
        self._updates.set_due(key, self._clock.monotonic() + wait if due_ms else None)

    async def register(self, key: SessionKey) -> None:
        """Redis has to know who looks after a session before anybody of here is in it."""
        duty = self._updates.get_or_create(key)
        if not duty.is_registered:
            await self._register_all([(key, duty)])

    async def reconcile(self) -> None:
        """Do all that is due, as far as Redis lets us."""
        if not self._pipeline.is_up or self._clock.monotonic() < self._retry_at:
            return
        try:
            if self._clock.monotonic() >= self._next_beat:
                await self._beat()
            if self._suspect:
                await self._reassert()
            await self._flush()
            await self._expire(self._updates.pop_due(self._clock.monotonic()))
            await self._sync_registrations()
        except FloorcastError:
            # Redis has gone, or is full.
            self._retry_at = self._clock.monotonic() + RETRY_SECONDS

    # --- signs of life

    async def _beat(self) -> None:
        self._next_beat = self._clock.monotonic() + self.liveness.beat_seconds
        standing = await self.liveness.beat()
        if standing is not NodeStatus.KNOWN:
            self._declared_dead = self._declared_dead or standing is NodeStatus.DECLARED_DEAD
            self._updates.reset_registrations()
            self._suspect = True
            self._next_beat = 0.0
        await self.liveness.declare_dead_nodes()
        self.session_count = await self._calls.count()
        self._taken_over &= self.liveness.dead_nodes
        # Who was given up says first who is still in.
        for node in self.liveness.dead_nodes - self._taken_over if not self._suspect else ():
            await self._take_over(node.decode())
            self._taken_over.add(node)

    async def _take_over(self, node: str) -> None:
        """Its connections were cut off when it died, a lease ago."""
        grace_ms = max(0, int((self._rules.grace_seconds - self.liveness.lease_seconds) * 1000))
        keys = [key_of_channel(each.decode()) for each in await self._calls.node_sessions(node)]
        for some in _chunks([key for key in keys if key is not None]):
            await asyncio.gather(*(self._expire_one(key, node, grace_ms) for key in some))
            await self._sync_registrations()
        await self._calls.delete_node_sessions(node)

    # --- what Redis may not know

    async def _reassert(self) -> None:
        self._suspect, swept, self._declared_dead = False, self._declared_dead, False
        try:
            known = self._updates.expected_connections()
            for some in _chunks(self._updates.all()):
                await asyncio.gather(
                    *(
                        self._reassert_session(key, duty, known.get(key, {}), swept)
                        for key, duty in some
                    )
                )
            await self._expire_abandoned()
        except FloorcastError:
            self._suspect, self._declared_dead = True, swept
            raise

    async def _expire_abandoned(self) -> None:
        """Redis may have lost that somebody of here was the last to leave a session."""
        listed = [
            key_of_channel(each.decode())
            for each in await self._calls.node_sessions(self.liveness.node)
        ]
        for some in _chunks([key for key in listed if key is not None]):
            # Whoever is on the way in is looked after already.
            left = [key for key in some if self._updates.get(key) is None]
            await asyncio.gather(*(self._expire_one(key, self.liveness.node) for key in left))

    async def _reassert_session(
        self,
        key: SessionKey,
        session: LocalSession,
        connections: Mapping[str, str],
        declared_dead: bool,
    ) -> None:
        if declared_dead:
            connections = {
                each: user for each, user in connections.items() if each in session.connections
            }
        if not connections or not session.mark:
            return
        outcome, *told = await self._calls.assert_members(
            key,
            self.liveness.node,
            connections,
            facts=session.facts,
            mark=session.mark,
            declared_dead=declared_dead,
        )
        if outcome == b"closed":
            self._on_event(
                SessionEvent(key, SessionEventKind.CLOSED, int(told[0]), self._calls.now_ms())
            )
            self._updates.drop_idle(key)
            return
        gone, *rest = told
        reply = decode_reply(rest)
        if reply.mark != session.mark:
            # It was lost, and they are waited for anew.
            self._updates.requeue_lost(key, connections)
        if outcome == b"made":
            await self._calls.claim(key, creator_of(reply.facts), check_limits=False)
        self._emit_kicked(key, session, reply, {each.decode() for each in gone})
        self.record(key, reply)

    def _emit_kicked(
        self, key: SessionKey, session: LocalSession, reply: SessionReply, gone: Collection[str]
    ) -> None:
        users = {session.connections[each]: None for each in gone if each in session.connections}
        count = len(reply.participants.members)
        for user_id in users:
            revision, now_ms = reply.participants.revision, self._calls.now_ms()
            self._on_event(
                SessionEvent(key, SessionEventKind.KICKED, revision, now_ms, user_id, count)
            )

    async def _flush(self) -> None:
        debts = self._updates.updates
        while debts:
            some = list(itertools.islice(debts.items(), _BATCH_SIZE))
            for place, _ in some:
                del debts[place]
            failures = await asyncio.gather(
                *(self._flush_one(place, debt) for place, debt in some), return_exceptions=True
            )
            failed = [each for each in failures if isinstance(each, BaseException)]
            if failed:
                raise failed[0]

    async def _flush_one(self, connection: SessionConnection, update: PendingUpdate) -> None:
        try:
            if update.rejoined:
                await self._flush_rejoin(connection, update)
            else:
                await self._flush_leave(connection, update)
        except BaseException:
            self._updates.requeue(connection, update)
            raise

    async def _flush_rejoin(self, connection: SessionConnection, update: PendingUpdate) -> None:
        connection_id, key = connection
        assert update.user_id is not None
        outcome, reply = await self._calls.join(
            connection_id, update.user_id, key, self.liveness.node
        )
        if reply is not None:
            self.record(key, reply)
            return
        duty = self._updates.get(key)
        if outcome == b"none" and duty is not None and duty.mark:
            # Redis has lost the session: it is not over as long as somebody looks after it.
            await self._reassert_session(
                key, duty, {connection_id: update.user_id}, declared_dead=False
            )
            return
        now_ms = self._calls.now_ms()
        self._on_event(
            SessionEvent(
                key,
                SessionEventKind.REFUSED,
                0,
                now_ms,
                update.user_id,
                connection_id=connection_id,
            )
        )
        self._updates.drop_idle(key)

    async def _flush_leave(self, connection: SessionConnection, update: PendingUpdate) -> None:
        connection_id, key = connection
        if update.lost and update.user_id is not None:
            until = self._clock.monotonic() + self._rules.grace_seconds
            self._updates.mark_lost(connection, update.user_id, until)
        self.set_due(key, await self._calls.leave(connection_id, key, lost=update.lost))

    # --- as time goes by

    async def _expire(self, keys: list[SessionKey]) -> None:
        waiting = list(keys)
        try:
            while waiting:
                some = waiting[-_BATCH_SIZE:]
                await asyncio.gather(*map(self._expire_one, some))
                del waiting[-_BATCH_SIZE:]
        finally:
            # Whatever could not be asked is due still.
            for key in waiting:
                self._updates.set_due(key, self._clock.monotonic())

    async def _expire_one(self, key: SessionKey, dead: str = "", grace_ms: int = 0) -> None:
        outcome, *told = await self._calls.expire(key, (dead,) if dead else (), grace_ms=grace_ms)
        if outcome == b"ok":
            self.set_due(key, told[0])
            return
        self._updates.set_due(key, None)
        self._on_event(SessionEvent(key, SessionEventKind.EXPIRED, 0, self._calls.now_ms()))
        if outcome == b"over":
            await self._calls.unclaim(key, creator_of(told[0]))

    async def _sync_registrations(self) -> None:
        for listed in _chunks(self._updates.to_register()):
            await self._register_all(listed)
        unlisted = tuple(self._updates.unregistered)
        self._updates.unregistered.clear()
        try:
            await self._calls.remove_node_sessions(self.liveness.node, unlisted)
        except FloorcastError:
            for key in unlisted:
                if self._updates.get(key) is None:
                    self._updates.unregistered[key] = None
            raise

    async def _register_all(self, sessions: Collection[tuple[SessionKey, LocalSession]]) -> None:
        await self._calls.add_node_sessions(self.liveness.node, [key for key, _ in sessions])
        for _, duty in sessions:
            duty.is_registered = True


def _chunks(things: Collection[T]) -> list[list[T]]:
    every = list(things)
    return [every[at : at + _BATCH_SIZE] for at in range(0, len(every), _BATCH_SIZE)]
