"""An assembly for many nodes: Redis knows who is in which session, and tells what happens there."""

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping

from server.brokers.errors import BrokerError
from server.brokers.failures import Failures
from server.brokers.redis.broker import RedisBroker, RedisConfig
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.liveness import Liveness
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.connection.wire import BROKEN, open_wire
from server.brokers.redis.limits.scripts import COUNT
from server.brokers.redis.presence.calls import SessionCalls
from server.brokers.redis.presence.codec import Reply, facts_of, read_news, read_reply, signal
from server.brokers.redis.presence.pending_updates import Debt, Duties
from server.brokers.redis.presence.reconciler import Caretaker
from server.brokers.redis.presence.scripts import AssemblyScripts
from server.core.errors import FloorcastError
from server.core.sessions.events import Happening, News
from server.core.sessions.participants import Gathering
from server.core.sessions.presence import session_full
from server.core.sessions.records import (
    SessionKey,
    SessionRules,
    no_such_session,
    not_in_session,
    session_closed,
    too_many_sessions,
)
from server.ports import Clock, unheard


class RedisAssembly:
    """Fills the `Assembly` port; whoever is in is known to Redis by connection and node."""

    def __init__(
        self, clock: Clock, config: RedisConfig, rules: SessionRules, broker: RedisBroker
    ) -> None:
        self._clock = clock
        self._config = config
        self._rules = rules
        self._broker = broker
        scripts = AssemblyScripts.within(rules)
        keys = Keys(config.prefix)
        wire = open_wire(
            config.address,
            (*scripts, COUNT),
            timeout_seconds=config.timeout_seconds,
            name=f"{config.prefix}-sessions-{secrets.token_hex(6)}",
        )
        self._work = asyncio.Event()
        self.pipeline = Pipeline(
            wire,
            name="floorcast-assembly-pipeline",
            timeout_seconds=config.timeout_seconds,
            max_waiting=config.max_waiting,
            on_change=self._look_around,
        )
        self._duties = Duties()
        self._calls = SessionCalls(self.pipeline, scripts, keys, clock, rules)
        self.life = Liveness(self._calls, clock, lease_seconds=config.lease_seconds)
        self._caretaker = Caretaker(
            self.pipeline, self._calls, self._duties, self.life, clock, rules, self._tell
        )
        self._hear: Callable[[News], None] = unheard
        self._failures = Failures()
        self._task: asyncio.Task[None] | None = None
        self._busy = False

    # --- its life

    async def start(self, hear: Callable[[News], None]) -> None:
        self._hear = hear
        try:
            await self.pipeline.start()
            await self._caretaker.begin()
        except (*BROKEN, TimeoutError, FloorcastError) as error:
            await self.pipeline.stop()
            raise BrokerError(f"it does not answer ({type(error).__name__})") from None
        self._broker.overhear(self._on_said, self._on_up)
        self._task = asyncio.create_task(self._keep_looking(), name="floorcast-assembly")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            await self._caretaker.end(self._config.timeout_seconds)
        self._hear = unheard
        await self.pipeline.stop()

    @property
    def session_count(self) -> int:
        return self._caretaker.session_count

    @property
    def idle(self) -> bool:
        """Whether everything that is due was said."""
        return not (self._busy or self._work.is_set() or self._duties.debts)

    # --- coming and going

    async def join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None = None,
    ) -> Gathering:
        place = (connection_id, key)
        was_in = self._is_in(connection_id, key)
        self._duties.debts.pop(place, None)
        try:
            outcome, reply = await self._join(connection_id, user_id, key, metadata)
        except BaseException as failure:
            # It may be in or not: where Redis stands again, it is told. Where its client was cut
            # off, its user is waited for as ever, and may have been already.
            cut_off = isinstance(failure, asyncio.CancelledError)
            self._owe(place, Debt(user_id, back=was_in, lost=cut_off and not was_in))
            raise
        if reply is None:
            self._duties.tidy(key)
            raise self._refusal(outcome)
        self._duties.seat(connection_id, user_id, key)
        self._caretaker.note(key, reply)
        return reply.gathering

    async def leave(self, connection_id: str, key: SessionKey) -> None:
        place = (connection_id, key)
        was_in = self._is_in(connection_id, key)
        self._duties.debts.pop(place, None)
        try:
            due_ms = await self._calls.leave(connection_id, key, lost=False)
        except BaseException:
            user_id = self._user_of(connection_id, key)
            self._owe(place, Debt(user_id, back=was_in and user_id is not None))
            raise
        self._duties.unseat(connection_id, key)
        self._caretaker.set_due(key, due_ms)

    def depart(self, connection_id: str, key: SessionKey, *, lost: bool) -> None:
        user_id = self._duties.unseat(connection_id, key)
        self._owe((connection_id, key), Debt(user_id, lost=lost))

    def admits(self, user_id: str, key: SessionKey) -> bool:
        # Only Redis can say; whoever has no place is turned out again.
        return True

    def rejoin(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        self._duties.seat(connection_id, user_id, key)
        self._owe((connection_id, key), Debt(user_id, back=True))

    # --- what moderators do

    async def kick(self, key: SessionKey, user_id: str) -> int:
        outcome, *told = await self._calls.kick(key, user_id)
        return self._sent_away(key, outcome, told)

    async def close(self, key: SessionKey) -> int:
        outcome, *told = await self._calls.close(key)
        return self._sent_away(key, outcome, told)

    def _sent_away(self, key: SessionKey, outcome: bytes, told: list[int]) -> int:
        if outcome != b"ok":
            raise self._refusal(outcome)
        count, due_ms = told
        self._caretaker.set_due(key, due_ms)
        return count

    # --- who is there, and what they say

    async def who(self, key: SessionKey) -> Gathering | None:
        told = await self._calls.who(key)
        return read_reply(told).gathering if told else None

    async def signal(self, key: SessionKey, connection_id: str, user_id: str, data: bytes) -> None:
        now_ms = int(self._clock.time() * 1000)
        await self._calls.tell(key, signal(connection_id, user_id, data, now_ms))

    async def sweep(self) -> Collection[SessionKey]:
        # The sessions whose time is over are forgotten in Redis, in one step with all they had.
        self._work.set()
        return ()

    # --- inside

    def _is_in(self, connection_id: str, key: SessionKey) -> bool:
        return self._user_of(connection_id, key) is not None

    def _user_of(self, connection_id: str, key: SessionKey) -> str | None:
        duty = self._duties.get(key)
        return None if duty is None else duty.seats.get(connection_id)

    def _owe(self, place: tuple[str, SessionKey], debt: Debt) -> None:
        self._duties.owe(place, debt)
        self._work.set()

    async def _join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None,
    ) -> tuple[bytes, Reply | None]:
        await self._caretaker.list_duty(key)
        outcome, reply = await self._calls.join(connection_id, user_id, key, self.life.node)
        if outcome != b"none" or not self._rules.join_creates:
            return outcome, reply
        total, made = await self._calls.claim(key, user_id)
        if not (total and made):
            if total:
                await self._calls.unclaim(key, user_id if made else None)
            raise too_many_sessions() if not total else self._rules.made_too_many()
        facts = facts_of(user_id, metadata)
        return await self._calls.join(connection_id, user_id, key, self.life.node, facts)

    def _refusal(self, outcome: bytes) -> FloorcastError:
        match outcome:
            case b"none":
                return no_such_session()
            case b"closed":
                return session_closed()
            case b"full":
                return session_full(self._rules.max_participants)
            case _:
                return not_in_session()

    def _on_said(self, channel: str, message: bytes) -> bool:
        news = read_news(channel, message)
        if news is None:
            return False
        self._tell(news)
        return True

    def _on_up(self) -> None:
        self._caretaker.doubt()
        self._work.set()

    def _look_around(self) -> None:
        self._caretaker.hurry()
        self._work.set()

    def _tell(self, news: News) -> None:
        if news.what is Happening.CLOSED:
            self._duties.empty(news.key)
        if news.what is Happening.REFUSED:
            self._duties.unseat(news.connection_id, news.key)
        try:
            self._hear(news)
        except Exception as failure:
            # What fails there is not ours: the next news are told all the same.
            self._failures.report(failure)

    async def _keep_looking(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            self._busy = True
            await self._caretaker.look()
            self._busy = False
