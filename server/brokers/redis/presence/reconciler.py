"""Reconciles Redis with this node's sessions, and takes over those of dead nodes."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from server.brokers.redis.connection.node_session import NodeSession, NodeStatus
from server.brokers.redis.presence.calls import SessionCalls
from server.brokers.redis.presence.codec import SessionReply, creator_of
from server.brokers.redis.presence.pending_updates import (
    LocalSession,
    PendingUpdate,
    PendingUpdates,
    SessionConnection,
)
from server.core.errors import FloorcastError
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.records import SessionKey, SessionRules
from server.ports import Clock

T = TypeVar("T")

# The delay before a failed reconciliation is retried.
RETRY_SECONDS = 0.5
# Sessions or connections processed concurrently.
_BATCH_SIZE = 256


class Reconciler:
    """Writes pending updates to Redis as soon as it is available, and retries failed ones."""

    def __init__(
        self,
        session: NodeSession,
        calls: SessionCalls,
        updates: PendingUpdates,
        clock: Clock,
        rules: SessionRules,
        on_event: Callable[[SessionEvent], None],
    ) -> None:
        self._calls = calls
        self._updates = updates
        self._clock = clock
        self._rules = rules
        self._on_event = on_event
        self._node_session = session
        self._next_beat = self._retry_at = 0.0
        # Whether Redis may differ from this node's state, or the sessions in which it may.
        self._suspect = False
        self._suspect_keys: dict[SessionKey, None] = {}
        # Whether others declared this node dead.
        self._declared_dead = False
        # Dead nodes whose sessions this node took over.
        self._taken_over: set[bytes] = set()
        self.session_count = 0

    async def start(self) -> None:
        """Send the first heartbeat."""
        await self._beat()

    async def stop(self, timeout_seconds: float) -> None:
        """Flush pending updates and retire the node; gives up after the timeout."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._flush()
                await self._node_session.retire()
        except (FloorcastError, TimeoutError):
            # Others take over when the lease expires.
            pass

    def suspect(self) -> None:
        """Suspect that events or updates were lost: the next run restores them."""
        self._suspect = True
        self._node_session.suspect()

    def retry_now(self) -> None:
        """Run without delay, after the connection was lost or is back."""
        self._next_beat = self._retry_at = 0.0

    def observe(self, event: SessionEvent) -> bool:
        """Whether to emit an event now; after a gap it waits until the missed ones are read.

        A gap shows that this node missed events, or that Redis lost the session.
        """
        session = self._updates.get(event.key)
        if session is None or not event.revision:
            return True
        if event.revision in session.read_revisions:
            return False
        if session.held or 0 < session.revision < event.revision - 1:
            session.held.append(event)
            self._suspect_keys[event.key] = None
            return False
        if event.revision <= session.revision:
            # Redis lost the session, and another node created it again.
            self._suspect_keys[event.key] = None
        session.revision = event.revision
        return True

    def record(self, key: SessionKey, reply: SessionReply, *, joined: str = "") -> None:
        """Store a session's facts, mark and due time, as of the join of this connection.

        If Redis lost the session and it was created again, this node restores its members first:
        under the new mark they would count as removed by others.
        """
        session = self._updates.get_or_create(key)
        if session.mark not in (b"", reply.mark) and self._updates.has_members(key, but=joined):
            self._suspect_keys[key] = None
            self.set_due(key, reply.due_ms)
        else:
            self._adopt(key, session, reply)

    def _adopt(self, key: SessionKey, session: LocalSession, reply: SessionReply) -> None:
        session.facts, session.mark = reply.facts, reply.mark
        session.joined_revision = session.joined_revision or reply.participants.revision
        self.set_due(key, reply.due_ms)

    async def restore(self, key: SessionKey) -> bool:
        """Restore a session that Redis lost; False if this node has no members in it."""
        session = self._updates.get(key)
        if session is None or not self._updates.has_members(key):
            return False
        connections = self._updates.expected_connections().get(key, {})
        await self._reassert_session(key, session, connections, declared_dead=False)
        return True

    def set_due(self, key: SessionKey, due_ms: int) -> None:
        """Set when a session must be checked for expiry; 0 for never."""
        wait = (due_ms - self._calls.now_ms()) / 1000
        self._updates.set_due(key, self._clock.monotonic() + wait if due_ms else None)

    async def register(self, key: SessionKey) -> None:
        """Register a session; must precede the first join, so that others can take over."""
        session = self._updates.get_or_create(key)
        if not session.is_registered:
            await self._register_all([(key, session)])

    async def reconcile(self) -> None:
        """Do everything that is due; failures are retried later."""
        if not self._node_session.pipeline.is_up or self._clock.monotonic() < self._retry_at:
            return
        try:
            if self._clock.monotonic() >= self._next_beat:
                await self._beat()
            if self._suspect or self._suspect_keys:
                await self._reassert()
            await self._flush()
            await self._expire(self._updates.pop_due(self._clock.monotonic()))
            await self._sync_registrations()
        except FloorcastError:
            # Redis is down or out of memory.
            self._retry_at = self._clock.monotonic() + RETRY_SECONDS

    # --- heartbeats and dead nodes

    async def _beat(self) -> None:
        self._next_beat = self._clock.monotonic() + self._node_session.beat_seconds
        status = await self._node_session.beat()
        if status is not NodeStatus.KNOWN:
            self._declared_dead = self._declared_dead or status is NodeStatus.DECLARED_DEAD
            self._updates.reset_registrations()
            self._suspect = True
            self._next_beat = 0.0
        await self._node_session.declare_dead_nodes()
        self.session_count = await self._calls.count()
        self._taken_over &= self._node_session.dead_nodes
        # If others declared this node dead, it restores its own connections first.
        for node in self._node_session.dead_nodes - self._taken_over if not self._suspect else ():
            await self._take_over(node.decode(errors="replace"))
            self._taken_over.add(node)

    async def _take_over(self, node: str) -> None:
        """Mark a dead node's connections as lost, as of a lease ago."""
        grace_ms = max(
            0, int((self._rules.grace_seconds - self._node_session.lease_seconds) * 1000)
        )
        for batch in _chunks(await self._calls.node_sessions(node)):
            await asyncio.gather(*(self._expire_one(key, node, grace_ms) for key in batch))
            await self._sync_registrations()
        await self._calls.delete_node_sessions(node)

    # --- restoring and flushing

    async def _reassert(self) -> None:
        everything, self._suspect = self._suspect, False
        declared_dead, self._declared_dead = self._declared_dead, False
        keys = self._suspect_keys.keys()
        suspects = [each for each in self._updates.all() if everything or each[0] in keys]
        self._suspect_keys = {}
        try:
            known = self._updates.expected_connections()
            for batch in _chunks(suspects):
                await asyncio.gather(
                    *(
                        self._reassert_session(key, session, known.get(key, {}), declared_dead)
                        for key, session in batch
                    )
                )
            if everything:
                await self._expire_abandoned()
        except FloorcastError:
            self._suspect, self._declared_dead = True, declared_dead
            raise

    async def _expire_abandoned(self) -> None:
        """Expire sessions registered for this node that it does not maintain any more."""
        for batch in _chunks(await self._calls.node_sessions(self._node_session.node)):
            # Sessions being joined are already maintained.
            abandoned = [key for key in batch if self._updates.get(key) is None]
            await asyncio.gather(
                *(self._expire_one(key, self._node_session.node) for key in abandoned)
            )

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
        await self._emit_missed(key, session)
        if not connections or not session.mark:
            return
        result = await self._calls.assert_members(
            key,
            self._node_session.node,
            connections,
            facts=session.facts,
            mark=session.mark,
            declared_dead=declared_dead,
        )
        reply = result.session
        if reply is None:
            self._on_event(
                SessionEvent(key, SessionEventKind.CLOSED, result.revision, self._calls.now_ms())
            )
            self._updates.drop_idle(key)
            return
        if reply.mark != session.mark:
            # Redis had lost the session: restart the grace periods.
            self._updates.requeue_lost(key, connections)
        if result.is_new:
            await self._calls.claim(key, creator_of(reply.facts), check_limits=False)
        self._emit_kicked(key, session, reply, result.missing)
        self._adopt(key, session, reply)

    async def _emit_missed(self, key: SessionKey, session: LocalSession) -> None:
        """Emit the events that this node missed, as far as Redis has them, then those held."""
        known = session.revision or session.joined_revision
        missed = await self._calls.events(key, known) if known else None
        held, session.held = session.held, []
        local_users = set(session.connections.values())
        new = [each for each in missed or () if each.revision > session.revision]
        if new:
            session.read_revisions = range(new[0].revision, new[-1].revision + 1)
        for event in (*new, *(each for each in held if each not in new)):
            session.revision = event.revision
            # Kicks of members of this node and a close show when the members are asserted.
            if event.kind is not SessionEventKind.CLOSED and not (
                event.kind is SessionEventKind.KICKED and event.user_id in local_users
            ):
                self._on_event(event)

    def _emit_kicked(
        self, key: SessionKey, session: LocalSession, reply: SessionReply, missing: Collection[str]
    ) -> None:
        users = {session.connections[each]: None for each in missing if each in session.connections}
        count = len(reply.participants.members)
        for user_id in users:
            revision, now_ms = reply.participants.revision, self._calls.now_ms()
            self._on_event(
                SessionEvent(key, SessionEventKind.KICKED, revision, now_ms, user_id, count)
            )

    async def _flush(self) -> None:
        updates = self._updates.queued
        while updates:
            batch = list(itertools.islice(updates.items(), _BATCH_SIZE))
            for connection, _ in batch:
                del updates[connection]
            results = await asyncio.gather(
                *(self._flush_one(connection, update) for connection, update in batch),
                return_exceptions=True,
            )
            failed = [each for each in results if isinstance(each, BaseException)]
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
        result = await self._calls.join(connection_id, update.user_id, key, self._node_session.node)
        if result.session is not None:
            self.record(key, result.session)
            return
        session = self._updates.get(key)
        if result.outcome == b"none" and session is not None and session.mark:
            # Redis lost the session: restore it, as it is not over while a node maintains it.
            await self._reassert_session(
                key, session, {connection_id: update.user_id}, declared_dead=False
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
        lost_by = self._node_session.node if update.lost else ""
        self.set_due(key, await self._calls.leave(connection_id, key, lost_by=lost_by))

    # --- expiry

    async def _expire(self, keys: list[SessionKey]) -> None:
        waiting = list(keys)
        try:
            while waiting:
                batch = waiting[-_BATCH_SIZE:]
                await asyncio.gather(*map(self._expire_one, batch))
                del waiting[-_BATCH_SIZE:]
        finally:
            # Sessions not processed stay due.
            for key in waiting:
                self._updates.set_due(key, self._clock.monotonic())

    async def _expire_one(self, key: SessionKey, dead: str = "", grace_ms: int = 0) -> None:
        result = await self._calls.expire(key, (dead,) if dead else (), grace_ms=grace_ms)
        if result.exists:
            self.set_due(key, result.due_ms)
            return
        self._updates.set_due(key, None)
        self._on_event(SessionEvent(key, SessionEventKind.EXPIRED, 0, self._calls.now_ms()))
        if result.facts:
            await self._calls.unclaim(key, creator_of(result.facts))

    async def _sync_registrations(self) -> None:
        for listed in _chunks(self._updates.to_register()):
            await self._register_all(listed)
        unlisted = tuple(self._updates.unregistered)
        self._updates.unregistered.clear()
        try:
            await self._calls.remove_node_sessions(self._node_session.node, unlisted)
        except FloorcastError:
            for key in unlisted:
                if self._updates.get(key) is None:
                    self._updates.unregistered[key] = None
            raise

    async def _register_all(self, sessions: Collection[tuple[SessionKey, LocalSession]]) -> None:
        await self._calls.add_node_sessions(self._node_session.node, [key for key, _ in sessions])
        for _, session in sessions:
            session.is_registered = True


def _chunks(items: Collection[T]) -> list[list[T]]:
    listed = list(items)
    return [listed[at : at + _BATCH_SIZE] for at in range(0, len(listed), _BATCH_SIZE)]
