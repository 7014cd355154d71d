"""Looks after the sessions of one node in Redis, and after those of nodes that have died."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from server.brokers.redis.connection.liveness import Liveness, Standing
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.presence.calls import SessionCalls
from server.brokers.redis.presence.codec import Reply, maker_of, read_reply
from server.brokers.redis.presence.pending_updates import Debt, Duties, Duty, Place
from server.core.errors import FloorcastError
from server.core.sessions.events import Happening, News
from server.core.sessions.records import SessionKey, SessionRules, key_of_channel
from server.ports import Clock

T = TypeVar("T")

# Before what has failed is tried again.
PAUSE_SECONDS = 0.5
# So many sessions, or connections, at once.
_MANY = 256


class Caretaker:
    """Says what Redis has to know as soon as it can be told; whatever fails is tried again."""

    def __init__(
        self,
        pipeline: Pipeline,
        calls: SessionCalls,
        duties: Duties,
        life: Liveness,
        clock: Clock,
        rules: SessionRules,
        tell: Callable[[News], None],
    ) -> None:
        self._pipeline = pipeline
        self._calls = calls
        self._duties = duties
        self._clock = clock
        self._rules = rules
        self._tell = tell
        self.life = life
        self._next_beat = self._not_before = 0.0
        # Whether Redis may think otherwise of who is in; and that others have given this node up.
        self._doubtful = False
        self._swept = False
        # Whose sessions were taken over by this node.
        self._taken_over: set[bytes] = set()
        self.session_count = 0

    async def begin(self) -> None:
        """Give the first sign of life."""
        await self._beat()

    async def end(self, seconds: float) -> None:
        """Say what is still to be said, and let others take over at once."""
        try:
            async with asyncio.timeout(seconds):
                await self._pay()
                await self.life.end()
        except (FloorcastError, TimeoutError):
            # They find out by its lease.
            pass

    def doubt(self) -> None:
        """Something of what happened may not have been heard."""
        self._doubtful = True
        self.life.doubt()

    def hurry(self) -> None:
        """Redis has gone, or is back: see at once what it knows."""
        self._next_beat = self._not_before = 0.0

    def note(self, key: SessionKey, reply: Reply) -> None:
        """This is what a session is."""
        duty = self._duties.take(key)
        duty.facts, duty.made = reply.facts, reply.made
        self.set_due(key, reply.due_ms)

    def set_due(self, key: SessionKey, due_ms: int) -> None:
        """When it has to be looked at again; 0 is never."""
        wait = (due_ms - self._calls.now_ms()) / 1000
        self._duties.set_due(key, self._clock.monotonic() + wait if due_ms else None)

    async def list_duty(self, key: SessionKey) -> None:
        """Redis has to know who looks after a session before anybody of here is in it."""
        duty = self._duties.take(key)
        if not duty.listed:
            await self._list([(key, duty)])

    async def look(self) -> None:
        """Do all that is due, as far as Redis lets us."""
        if not self._pipeline.up or self._clock.monotonic() < self._not_before:
            return
        try:
            if self._clock.monotonic() >= self._next_beat:
                await self._beat()
            if self._doubtful:
                await self._say_again()
            await self._pay()
            await self._settle(self._duties.due(self._clock.monotonic()))
            await self._keep_list()
        except FloorcastError:
            # Redis has gone, or is full.
            self._not_before = self._clock.monotonic() + PAUSE_SECONDS

    # --- signs of life

    async def _beat(self) -> None:
        self._next_beat = self._clock.monotonic() + self.life.beat_seconds
        standing = await self.life.beat()
        if standing is not Standing.KNOWN:
            self._swept = self._swept or standing is Standing.GIVEN_UP
            self._duties.unlist_all()
            self._doubtful = True
            self._next_beat = 0.0
        await self.life.give_up()
        self.session_count = await self._calls.count()
        self._taken_over &= self.life.dead
        # Who was given up says first who is still in.
        for node in self.life.dead - self._taken_over if not self._doubtful else ():
            await self._take_over(node.decode())
            self._taken_over.add(node)

    async def _take_over(self, node: str) -> None:
        """Its connections were cut off when it died, a lease ago."""
        grace_ms = max(0, int((self._rules.grace_seconds - self.life.lease_seconds) * 1000))
        keys = [key_of_channel(each.decode()) for each in await self._calls.duties_of(node)]
        for some in _parts([key for key in keys if key is not None]):
            await asyncio.gather(*(self._settle_one(key, node, grace_ms) for key in some))
            await self._keep_list()
        await self._calls.forget_duties(node)

    # --- what Redis may not know

    async def _say_again(self) -> None:
        self._doubtful, swept, self._swept = False, self._swept, False
        try:
            known = self._duties.known()
            for some in _parts(self._duties.all()):
                await asyncio.gather(
                    *(self._assert(key, duty, known.get(key, {}), swept) for key, duty in some)
                )
            await self._clear_up()
        except FloorcastError:
            self._doubtful, self._swept = True, swept
            raise

    async def _clear_up(self) -> None:
        """Redis may have lost that somebody of here was the last to leave a session."""
        listed = [
            key_of_channel(each.decode()) for each in await self._calls.duties_of(self.life.node)
        ]
        for some in _parts([key for key in listed if key is not None]):
            # Whoever is on the way in is looked after already.
            left = [key for key in some if self._duties.get(key) is None]
            await asyncio.gather(*(self._settle_one(key, self.life.node) for key in left))

    async def _assert(
        self, key: SessionKey, duty: Duty, connections: Mapping[str, str], swept: bool
    ) -> None:
        if swept:
            connections = {each: user for each, user in connections.items() if each in duty.seats}
        if not connections or not duty.made:
            return
        outcome, *told = await self._calls.again(
            key, self.life.node, connections, facts=duty.facts, made=duty.made, swept=swept
        )
        if outcome == b"closed":
            self._tell(News(key, Happening.CLOSED, int(told[0]), self._calls.now_ms()))
            self._duties.tidy(key)
            return
        gone, *rest = told
        reply = read_reply(rest)
        if reply.made != duty.made:
            # It was lost, and they are waited for anew.
            self._duties.lost_again(key, connections)
        if outcome == b"made":
            await self._calls.claim(key, maker_of(reply.facts), judged=False)
        self._tell_kicked(key, duty, reply, {each.decode() for each in gone})
        self.note(key, reply)

    def _tell_kicked(
        self, key: SessionKey, duty: Duty, reply: Reply, gone: Collection[str]
    ) -> None:
        users = {duty.seats[each]: None for each in gone if each in duty.seats}
        count = len(reply.gathering.members)
        for user_id in users:
            revision, now_ms = reply.gathering.revision, self._calls.now_ms()
            self._tell(News(key, Happening.KICKED, revision, now_ms, user_id, count))

    async def _pay(self) -> None:
        debts = self._duties.debts
        while debts:
            some = list(itertools.islice(debts.items(), _MANY))
            for place, _ in some:
                del debts[place]
            failures = await asyncio.gather(
                *(self._pay_one(place, debt) for place, debt in some), return_exceptions=True
            )
            failed = [each for each in failures if isinstance(each, BaseException)]
            if failed:
                raise failed[0]

    async def _pay_one(self, place: Place, debt: Debt) -> None:
        try:
            if debt.back:
                await self._bring_back(place, debt)
            else:
                await self._let_out(place, debt)
        except BaseException:
            self._duties.owe_again(place, debt)
            raise

    async def _bring_back(self, place: Place, debt: Debt) -> None:
        connection_id, key = place
        assert debt.user_id is not None
        outcome, reply = await self._calls.join(connection_id, debt.user_id, key, self.life.node)
        if reply is not None:
            self.note(key, reply)
            return
        duty = self._duties.get(key)
        if outcome == b"none" and duty is not None and duty.made:
            # Redis has lost the session: it is not over as long as somebody looks after it.
            await self._assert(key, duty, {connection_id: debt.user_id}, swept=False)
            return
        now_ms = self._calls.now_ms()
        self._tell(
            News(key, Happening.REFUSED, 0, now_ms, debt.user_id, connection_id=connection_id)
        )
        self._duties.tidy(key)

    async def _let_out(self, place: Place, debt: Debt) -> None:
        connection_id, key = place
        if debt.lost and debt.user_id is not None:
            until = self._clock.monotonic() + self._rules.grace_seconds
            self._duties.lose(place, debt.user_id, until)
        self.set_due(key, await self._calls.leave(connection_id, key, lost=debt.lost))

    # --- as time goes by

    async def _settle(self, keys: list[SessionKey]) -> None:
        waiting = list(keys)
        try:
            while waiting:
                some = waiting[-_MANY:]
                await asyncio.gather(*map(self._settle_one, some))
                del waiting[-_MANY:]
        finally:
            # Whatever could not be asked is due still.
            for key in waiting:
                self._duties.set_due(key, self._clock.monotonic())

    async def _settle_one(self, key: SessionKey, dead: str = "", grace_ms: int = 0) -> None:
        outcome, *told = await self._calls.settle(key, (dead,) if dead else (), grace_ms=grace_ms)
        if outcome == b"ok":
            self.set_due(key, told[0])
            return
        self._duties.set_due(key, None)
        self._tell(News(key, Happening.OVER, 0, self._calls.now_ms()))
        if outcome == b"over":
            await self._calls.unclaim(key, maker_of(told[0]))

    async def _keep_list(self) -> None:
        for listed in _parts(self._duties.to_list()):
            await self._list(listed)
        unlisted = tuple(self._duties.unlisted)
        self._duties.unlisted.clear()
        try:
            await self._calls.unlist_duties(self.life.node, unlisted)
        except FloorcastError:
            for key in unlisted:
                if self._duties.get(key) is None:
                    self._duties.unlisted[key] = None
            raise

    async def _list(self, duties: Collection[tuple[SessionKey, Duty]]) -> None:
        await self._calls.list_duties(self.life.node, [key for key, _ in duties])
        for _, duty in duties:
            duty.listed = True


def _parts(things: Collection[T]) -> list[list[T]]:
    every = list(things)
    return [every[at : at + _MANY] for at in range(0, len(every), _MANY)]
