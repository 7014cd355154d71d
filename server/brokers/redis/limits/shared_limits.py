"""Counts with the other nodes how many connections an address or a user has."""

import asyncio
from collections import OrderedDict
from functools import partial

from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.wire import Reply, evaluate
from server.brokers.redis.limits.scripts import COUNT, KEPT_MS
from server.brokers.redis.limits.shared_counter import Ask, Tally
from server.brokers.redis.presence.manager import RedisAssembly
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.limits.keys import Holder, Quotas, too_many_connections
from server.ports import Clock

# A client does not notice a wait like this, and Redis is hardly ever as slow.
PATIENCE_SECONDS = 0.3
_SAY_AGAIN_SECONDS = KEPT_MS / 3000
# So many are said to Redis at a time, when it has lost them.
_MANY = 256


class RedisPlaces:
    """Fills the `Places` port; what a node has is its own as long as it gives signs of life.

    A node that has died is not looked for: its places are taken from it by whoever is told that
    all are taken, or says again what it has itself.
    """

    def __init__(
        self,
        clock: Clock,
        counters: Counters,
        quotas: Quotas,
        assembly: RedisAssembly,
        *,
        prefix: str,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._clock = clock
        self._counters = counters
        self._quotas = quotas
        self._keys = Keys(prefix)
        self._pipeline = assembly.pipeline
        self._life = assembly.life
        self._patience_seconds = patience_seconds
        # Who was told of longest ago comes first.
        self._tallies: OrderedDict[Holder, Tally] = OrderedDict()
        # To be said as soon as there is room, and what could not be said before the next beat.
        self._unsaid: dict[Holder, None] = {}
        self._failed: dict[Holder, None] = {}
        self._on_their_way = 0
        self._alone = False
        self._life.overhear(self._on_beat)

    @property
    def alone(self) -> bool:
        return self._alone

    async def take(self, holder: Holder) -> None:
        quota = self._quotas.of(holder)
        if quota.unlimited:
            return
        tally = self._tallies.get(holder)
        if tally is None:
            tally = self._tallies[holder] = Tally(quota, self._clock.monotonic())
        ask = Ask()
        if self._alone:
            # Whether it answers again is seen by what it is told; nobody waits for that.
            self._decide_alone(tally, ask)
            self._say(holder, tally)
            return
        tally.wait(ask)
        self._say(holder, tally)
        # Not `asyncio.timeout`: a handler runs without a task until it waits for the first time.
        timer = asyncio.get_running_loop().call_later(
            self._patience_seconds, self._lose_patience, tally, ask
        )
        try:
            refusal = await ask.answer
        except BaseException:
            # Its client has gone.
            if ask.placed:
                self.give(holder)
            raise
        finally:
            timer.cancel()
        if refusal is not None:
            raise refusal

    def give(self, holder: Holder) -> None:
        tally = self._tallies.get(holder)
        if tally is not None:
            tally.give()
            self._say(holder, tally)

    @property
    def tracked(self) -> int:
        """How many addresses and users are remembered."""
        return len(self._tallies)

    # --- inside

    def _say(self, holder: Holder, tally: Tally, gone: tuple[bytes, ...] = ()) -> None:
        asks = tally.question()
        if asks is None:
            self._forget(holder, tally)
            return
        said, node, quota = tally.has, self._life.node, tally.quota
        command = evaluate(
            COUNT,
            [self._keys.places(holder)],
            node.encode(),
            said,
            len(asks),
            sum(not each.attempted for each in asks),
            quota.connections,
            str(quota.attempts_per_second).encode(),
            str(quota.attempts_at_once).encode(),
            int(self._clock.time() * 1000),
            *gone,
        )
        tally.asked = asks
        try:
            answer = self._pipeline.submit(command)
        except FloorcastError:
            # It was not even sent: Redis thinks what it thought.
            self._fail(holder, tally)
            self._forget(holder, tally)
            return
        self._on_their_way += 1
        answer.add_done_callback(partial(self._hear, holder, tally, said, node))

    def _hear(
        self,
        holder: Holder,
        tally: Tally,
        said: int,
        node: str,
        answer: "asyncio.Future[Reply]",
    ) -> None:
        self._on_their_way -= 1
        if answer.cancelled() or answer.exception() is not None:
            tally.told = None
            self._fail(holder, tally)
            return
        self._alone = False
        granted, within, wait_ms, others = answer.result()
        gone = tuple(each for each in others if each in self._life.dead)
        full = partial(too_many_connections, holder, tally.quota.connections)
        tally.heard(said, granted, within, wait_ms, again=bool(gone), full=full)
        if gone or node != self._life.node:
            # It has to be said once more: without the dead, or by another name.
            tally.told = None
        tally.told_at = self._clock.monotonic()
        self._tallies.move_to_end(holder)
        self._say(holder, tally, gone)
        self._say_more()

    def _fail(self, holder: Holder, tally: Tally) -> None:
        self._alone = True
        self._failed[holder] = None
        for ask in tally.let_go():
            self._decide_alone(tally, ask)

    def _forget(self, holder: Holder, tally: Tally) -> None:
        """While Redis is away too: strangers may come and go then without end."""
        if tally.empty:
            self._tallies.pop(holder, None)
            self._failed.pop(holder, None)

    def _decide_alone(self, tally: Tally, ask: Ask) -> None:
        self._counters.add("limits.local")
        tally.place(ask)

    def _lose_patience(self, tally: Tally, ask: Ask) -> None:
        if not ask.answer.done():
            self._alone = True
            self._decide_alone(tally, ask)

    def _on_beat(self, lost: bool) -> None:
        long_ago = self._clock.monotonic() - _SAY_AGAIN_SECONDS
        for holder, tally in self._tallies.items():
            if not lost and tally.told_at > long_ago:
                break
            tally.told = None
            self._unsaid[holder] = None
        self._unsaid.update(self._failed)
        self._failed.clear()
        self._say_more()

    def _say_more(self) -> None:
        while self._unsaid and self._on_their_way < _MANY:
            holder = next(iter(self._unsaid))
            del self._unsaid[holder]
            tally = self._tallies.get(holder)
            if tally is not None:
                self._say(holder, tally)
