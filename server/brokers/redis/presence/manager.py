"""An assembly for many nodes: Redis knows who is in which session, and tells what happens there."""

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping

from server.brokers.errors import BrokerError
from server.brokers.failures import FailureLog
from server.brokers.redis.broker import RedisBroker, RedisConfig
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.liveness import Liveness
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.connection.wire import CONNECTION_ERRORS, create_client
from server.brokers.redis.limits.scripts import COUNT
from server.brokers.redis.presence.calls import SessionCalls
from server.brokers.redis.presence.codec import (
    SessionReply,
    decode_event,
    decode_reply,
    encode_facts,
    encode_signal,
)
from server.brokers.redis.presence.pending_updates import PendingUpdate, PendingUpdates
from server.brokers.redis.presence.reconciler import Reconciler
from server.brokers.redis.presence.scripts import PresenceScripts
from server.core.errors import FloorcastError
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.participants import Participants
from server.core.sessions.presence import session_full
from server.core.sessions.records import (
    SessionKey,
    SessionRules,
    no_such_session,
    not_in_session,
    session_closed,
    too_many_sessions,
)
from server.ports import Clock, ignore


class RedisPresence:
    """Fills the `Assembly` port; whoever is in is known to Redis by connection and node."""

    def __init__(
        self, clock: Clock, config: RedisConfig, rules: SessionRules, broker: RedisBroker
    ) -> None:
        self._clock = clock
        self._config = config
        self._rules = rules
        self._broker = broker
        scripts = PresenceScripts.build(rules)
        keys = Keys(config.prefix)
        wire = create_client(
            config.address,
            (*scripts, COUNT),
            timeout_seconds=config.timeout_seconds,
            name=f"{config.prefix}-sessions-{secrets.token_hex(6)}",
        )
        self._wakeup = asyncio.Event()
        self.pipeline = Pipeline(
            wire,
            name="floorcast-assembly-pipeline",
            timeout_seconds=config.timeout_seconds,
            max_queued=config.max_queued,
            on_change=self._on_connection_change,
        )
        self._updates = PendingUpdates()
        self._calls = SessionCalls(self.pipeline, scripts, keys, clock, rules)
        self.liveness = Liveness(self._calls, clock, lease_seconds=config.lease_seconds)
        self._reconciler = Reconciler(
            self.pipeline, self._calls, self._updates, self.liveness, clock, rules, self._emit
        )
        self._on_event: Callable[[SessionEvent], None] = ignore
        self._failure_log = FailureLog()
        self._task: asyncio.Task[None] | None = None
        self._reconciling = False

    # --- its life

    async def start(self, on_event: Callable[[SessionEvent], None]) -> None:
        self._on_event = on_event
        try:
            await self.pipeline.start()
            await self._reconciler.start()
        except (*CONNECTION_ERRORS, TimeoutError, FloorcastError) as error:
            await self.pipeline.stop()
            raise BrokerError(f"it does not answer ({type(error).__name__})") from None
        self._broker.add_listener(self._on_message, self._on_up)
        self._task = asyncio.create_task(self._reconcile_loop(), name="floorcast-assembly")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            await self._reconciler.stop(self._config.timeout_seconds)
        self._on_event = ignore
        await self.pipeline.stop()

    @property
    def session_count(self) -> int:
        return self._reconciler.session_count

    @property
    def is_idle(self) -> bool:
        """Whether everything that is due was said."""
        return not (self._reconciling or self._wakeup.is_set() or self._updates.updates)

    # --- coming and going

    async def join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None = None,
    ) -> Participants:
        place = (connection_id, key)
        was_in = self._has_connection(connection_id, key)
        self._updates.updates.pop(place, None)
        try:
            outcome, reply = await self._join(connection_id, user_id, key, metadata)
        except BaseException as failure:
            # It may be in or not: where Redis stands again, it is told. Where its client was cut
            # off, its user is waited for as ever, and may have been already.
            cut_off = isinstance(failure, asyncio.CancelledError)
            self._enqueue(
                place, PendingUpdate(user_id, rejoined=was_in, lost=cut_off and not was_in)
            )
            raise
        if reply is None:
            self._updates.drop_idle(key)
            raise self._error_for(outcome)
        self._updates.add_connection(connection_id, user_id, key)
        self._reconciler.record(key, reply)
        return reply.participants

    async def leave(self, connection_id: str, key: SessionKey) -> None:
        place = (connection_id, key)
        was_in = self._has_connection(connection_id, key)
        self._updates.updates.pop(place, None)
        try:
            due_ms = await self._calls.leave(connection_id, key, lost=False)
        except BaseException:
            user_id = self._user_of(connection_id, key)
            self._enqueue(place, PendingUpdate(user_id, rejoined=was_in and user_id is not None))
            raise
        self._updates.remove_connection(connection_id, key)
        self._reconciler.set_due(key, due_ms)

    def remove(self, connection_id: str, key: SessionKey, *, lost: bool) -> None:
        user_id = self._updates.remove_connection(connection_id, key)
        self._enqueue((connection_id, key), PendingUpdate(user_id, lost=lost))

    def can_rejoin(self, user_id: str, key: SessionKey) -> bool:
        # Only Redis can say; whoever has no place is turned out again.
        return True

    def rejoin(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        self._updates.add_connection(connection_id, user_id, key)
        self._enqueue((connection_id, key), PendingUpdate(user_id, rejoined=True))

    # --- what moderators do

    async def kick(self, key: SessionKey, user_id: str) -> int:
        outcome, *told = await self._calls.kick(key, user_id)
        return self._apply_removal(key, outcome, told)

    async def close(self, key: SessionKey) -> int:
        outcome, *told = await self._calls.close(key)
        return self._apply_removal(key, outcome, told)

    def _apply_removal(self, key: SessionKey, outcome: bytes, told: list[int]) -> int:
        if outcome != b"ok":
            raise self._error_for(outcome)
        count, due_ms = told
        self._reconciler.set_due(key, due_ms)
        return count

    # --- who is there, and what they say

    async def participants(self, key: SessionKey) -> Participants | None:
        told = await self._calls.participants(key)
        return decode_reply(told).participants if told else None

    async def signal(self, key: SessionKey, connection_id: str, user_id: str, data: bytes) -> None:
        now_ms = int(self._clock.time() * 1000)
        await self._calls.publish(key, encode_signal(connection_id, user_id, data, now_ms))

    async def sweep(self) -> Collection[SessionKey]:
        # The sessions whose time is over are forgotten in Redis, in one step with all they had.
        self._wakeup.set()
        return ()

    # --- inside

    def _has_connection(self, connection_id: str, key: SessionKey) -> bool:
        return self._user_of(connection_id, key) is not None

    def _user_of(self, connection_id: str, key: SessionKey) -> str | None:
        duty = self._updates.get(key)
        return None if duty is None else duty.connections.get(connection_id)

    def _enqueue(self, connection: tuple[str, SessionKey], update: PendingUpdate) -> None:
        self._updates.enqueue(connection, update)
        self._wakeup.set()

    async def _join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None,
    ) -> tuple[bytes, SessionReply | None]:
        await self._reconciler.register(key)
        outcome, reply = await self._calls.join(connection_id, user_id, key, self.liveness.node)
        if outcome != b"none" or not self._rules.join_creates:
            return outcome, reply
        total, made = await self._calls.claim(key, user_id)
        if not (total and made):
            if total:
                await self._calls.unclaim(key, user_id if made else None)
            raise too_many_sessions() if not total else self._rules.too_many_created()
        facts = encode_facts(user_id, metadata)
        return await self._calls.join(connection_id, user_id, key, self.liveness.node, facts)

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
        news = decode_event(channel, message)
        if news is None:
            return False
        self._emit(news)
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
            # What fails there is not ours: the next news are told all the same.
            self._failure_log.report(failure)

    async def _reconcile_loop(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            self._reconciling = True
            await self._reconciler.reconcile()
            self._reconciling = False
