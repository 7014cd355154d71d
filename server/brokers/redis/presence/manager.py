"""The presence manager for many nodes: Redis stores participants and publishes events."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from server.brokers.errors import BrokerError
from server.brokers.failure_log import FailureLog
from server.brokers.redis.broker import RedisBroker
from server.brokers.redis.config import RedisConfig
from server.brokers.redis.connection.client import CONNECTION_ERRORS
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.node_session import NodeSession
from server.brokers.redis.presence.calls import SessionCalls
from server.brokers.redis.presence.codec import (
    JoinResult,
    RemovalResult,
    decode_event,
    encode_facts,
    encode_signal,
)
from server.brokers.redis.presence.pending_updates import PendingUpdate, PendingUpdates
from server.brokers.redis.presence.reconciler import Reconciler
from server.brokers.redis.presence.scripts import PresenceScripts
from server.core.errors import FloorcastError
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.participants import Participants, SessionSummary
from server.core.sessions.presence import session_full
from server.core.sessions.records import (
    SessionKey,
    SessionRules,
    no_such_session,
    not_in_session,
    session_closed,
)
from server.ports import Clock, ignore
from server.tasks import cancel_and_wait


class RedisPresence:
    """Implements `PresenceManager`; Redis stores each connection with its user and node."""

    def __init__(
        self,
        clock: Clock,
        config: RedisConfig,
        rules: SessionRules,
        broker: RedisBroker,
        session: NodeSession,
    ) -> None:
        self._clock = clock
        self._config = config
        self._rules = rules
        self._broker = broker
        scripts = PresenceScripts.build(rules)
        session.use_scripts(scripts)
        self.session = session
        self._wakeup = asyncio.Event()
        self._updates = PendingUpdates()
        self._calls = SessionCalls(
            session.pipeline, scripts, Keys(config.prefix), clock, rules, broker.counters
        )
        self._reconciler = Reconciler(session, self._calls, self._updates, clock, rules, self._emit)
        self._on_event: Callable[[SessionEvent], None] = ignore
        self._failure_log = FailureLog()
        self._task: asyncio.Task[None] | None = None
        self._reconciling = False

    async def start(self, on_event: Callable[[SessionEvent], None]) -> None:
        self._on_event = on_event
        try:
            await self.session.start(self._on_connection_change)
            await self._reconciler.start()
        except (*CONNECTION_ERRORS, FloorcastError) as error:
            await self.session.stop()
            raise BrokerError(f"Redis does not answer ({type(error).__name__})") from None
        self._broker.add_listener(self._on_message, self._on_up)
        self._broker.add_connection(self.session.pipeline.reconnect)
        self._task = self._broker.tasks.keep(self._reconcile_loop, "floorcast-presence")

    async def stop(self) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
            await self._reconciler.stop(self._config.timeout_seconds)
        self._on_event = ignore
        await self.session.stop()

    @property
    def session_count(self) -> int:
        return self._reconciler.session_count

    @property
    def is_idle(self) -> bool:
        """Whether no update is pending or running."""
        return not (self._reconciling or self._wakeup.is_set() or self._updates.queued)

    # --- connections

    async def join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None = None,
    ) -> Participants:
        connection = (connection_id, key)
        was_joined = self._has_connection(connection_id, key)
        self._updates.queued.pop(connection, None)
        try:
            result = await self._join(connection_id, user_id, key, metadata)
        except BaseException as failure:
            # The outcome is unknown: restore the state before the call. If the client was cut off
            # during it, its user keeps presence for the grace period.
            cut_off = isinstance(failure, asyncio.CancelledError)
            self._enqueue(
                connection,
                PendingUpdate(user_id, rejoined=was_joined, lost=cut_off and not was_joined),
            )
            raise
        if result.session is None:
            self._updates.drop_idle(key)
            raise self._error_for(result.outcome)
        self._updates.add_connection(connection_id, user_id, key)
        self._reconciler.record(key, result.session, joined=connection_id)
        return result.session.participants

    async def leave(self, connection_id: str, key: SessionKey) -> None:
        connection = (connection_id, key)
        was_joined = self._has_connection(connection_id, key)
        self._updates.queued.pop(connection, None)
        try:
            due_ms = await self._calls.leave(connection_id, key)
        except BaseException:
            user_id = self._user_of(connection_id, key)
            self._enqueue(
                connection, PendingUpdate(user_id, rejoined=was_joined and user_id is not None)
            )
            raise
        self._updates.remove_connection(connection_id, key)
        self._reconciler.set_due(key, due_ms)

    def remove(self, connection_id: str, key: SessionKey, *, lost: bool) -> None:
        user_id = self._updates.remove_connection(connection_id, key)
        self._enqueue((connection_id, key), PendingUpdate(user_id, lost=lost))

    def can_rejoin(self, user_id: str, key: SessionKey) -> bool:
        # Only Redis knows; a rejected connection gets a REFUSED event later.
        return True

    def rejoin(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        self._updates.add_connection(connection_id, user_id, key)
        self._enqueue((connection_id, key), PendingUpdate(user_id, rejoined=True))

    # --- moderation

    async def kick(self, key: SessionKey, user_id: str) -> int:
        return self._apply_removal(key, await self._calls.kick(key, user_id))

    async def close(self, key: SessionKey) -> int:
        return self._apply_removal(key, await self._calls.close(key))

    def _apply_removal(self, key: SessionKey, result: RemovalResult) -> int:
        if result.outcome != b"ok":
            raise self._error_for(result.outcome)
        self._reconciler.set_due(key, result.due_ms)
        return result.count

    # --- participants and signals

    async def participants(self, key: SessionKey) -> Participants | None:
        session = await self._calls.participants(key)
        return None if session is None else session.participants

    async def sessions_of(self, org: str, after: str, limit: int) -> Sequence[SessionSummary]:
        return await self._calls.sessions_of(org, after, limit)

    async def events_since(self, key: SessionKey, revision: int) -> Sequence[SessionEvent] | None:
        return await self._calls.events(key, revision)

    async def signal(self, key: SessionKey, connection_id: str, user_id: str, data: bytes) -> None:
        now_ms = int(self._clock.time() * 1000)
        await self._calls.publish(key, encode_signal(connection_id, user_id, data, now_ms))

    async def sweep(self) -> Collection[SessionKey]:
        # The expiry script deletes a session together with its log.
        self._wakeup.set()
        return ()

    def _has_connection(self, connection_id: str, key: SessionKey) -> bool:
        return self._user_of(connection_id, key) is not None

    def _user_of(self, connection_id: str, key: SessionKey) -> str | None:
        session = self._updates.get(key)
        return None if session is None else session.connections.get(connection_id)

    def _enqueue(self, connection: tuple[str, SessionKey], update: PendingUpdate) -> None:
        self._updates.enqueue(connection, update)
        self._wakeup.set()

    async def _join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None,
    ) -> JoinResult:
        await self._reconciler.register(key)
        result = await self._calls.join(connection_id, user_id, key, self.session.node)
        if result.outcome == b"none" and await self._reconciler.restore(key):
            result = await self._calls.join(connection_id, user_id, key, self.session.node)
        if result.outcome != b"none" or not self._rules.join_creates:
            return result
        error = await self._calls.claim(key, user_id)
        if error is not None:
            raise error
        facts = encode_facts(user_id, metadata)
        return await self._calls.join(connection_id, user_id, key, self.session.node, facts)

    def _error_for(self, outcome: bytes) -> FloorcastError:
        match outcome:
            case b"none":
                return no_such_session()
            case b"closed":
                return session_closed()
            case b"full":
                return session_full(self._rules.max_participants)
            case _:
                return not_in_session()

    def _on_message(self, channel: str, message: bytes) -> bool:
        event = decode_event(channel, message)
        if event is None:
            return False
        if self._reconciler.observe(event):
            self._emit(event)
        else:
            self._wakeup.set()
        return True

    def _on_up(self) -> None:
        self._reconciler.suspect()
        self._wakeup.set()

    def _on_connection_change(self) -> None:
        self._reconciler.retry_now()
        self._wakeup.set()

    def _emit(self, event: SessionEvent) -> None:
        if event.kind is SessionEventKind.CLOSED:
            self._updates.clear_connections(event.key)
        if event.kind is SessionEventKind.REFUSED:
            self._updates.remove_connection(event.connection_id, event.key)
        try:
            self._on_event(event)
        except Exception as failure:
            # A failing callback must not stop later events.
            self._failure_log.report(failure)

    async def _reconcile_loop(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            self._reconciling = True
            try:
                await self._reconciler.reconcile()
            finally:
                self._reconciling = False
