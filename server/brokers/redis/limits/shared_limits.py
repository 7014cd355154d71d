"""Counts with the other nodes how many connections an address or a user has."""

import asyncio
from collections import OrderedDict
from functools import partial

from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.wire import Reply, evaluate
from server.brokers.redis.limits.scripts import COUNT, COUNT_TTL_MS
from server.brokers.redis.limits.shared_counter import AcquireRequest, SharedCounter
from server.brokers.redis.presence.manager import RedisPresence
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.limits.keys import LimitKey, LimitKeys, too_many_connections
from server.ports import Clock

# A client does not notice a wait like this, and Redis is hardly ever as slow.
DECISION_TIMEOUT_SECONDS = 0.3
_REPORT_INTERVAL_SECONDS = COUNT_TTL_MS / 3000
# So many are said to Redis at a time, when it has lost them.
_MAX_IN_FLIGHT = 256


class RedisSharedLimits:
    """Fills the `Places` port; what a node has is its own as long as it gives signs of life.

    A node that has died is not looked for: its places are taken from it by whoever is told that
    all are taken, or says again what it has itself.
    """

    def __init__(
        self,
        clock: Clock,
        counters: Counters,
        limits: LimitKeys,
        presence: RedisPresence,
        *,
        prefix: str,
        timeout_seconds: float = DECISION_TIMEOUT_SECONDS,
    ) -> None:
        self._clock = clock
        self._counters = counters
        self._limits = limits
        self._keys = Keys(prefix)
        self._pipeline = presence.pipeline
        self._liveness = presence.liveness
        self._timeout_seconds = timeout_seconds
        # Who was told of longest ago comes first.
        self._shared_counters: OrderedDict[LimitKey, SharedCounter] = OrderedDict()
        # To be said as soon as there is room, and what could not be said before the next beat.
        self._unreported: dict[LimitKey, None] = {}
        self._failed: dict[LimitKey, None] = {}
        self._in_flight = 0
        self._degraded = False
        self._liveness.add_listener(self._on_beat)

    @property
    def is_degraded(self) -> bool:
        return self._degraded

    async def acquire(self, key: LimitKey) -> None:
        quota = self._limits.limit_for(key)
        if quota.is_unlimited:
            return
        tally = self._shared_counters.get(key)
        if tally is None:
            tally = self._shared_counters[key] = SharedCounter(quota, self._clock.monotonic())
        ask = AcquireRequest()
        if self._degraded:
            # Whether it answers again is seen by what it is told; nobody waits for that.
            self._grant_locally(tally, ask)
            self._report(key, tally)
            return
        tally.enqueue(ask)
        self._report(key, tally)
        # Not `asyncio.timeout`: a handler runs without a task until it waits for the first time.
        timer = asyncio.get_running_loop().call_later(
            self._timeout_seconds, self._on_timeout, tally, ask
        )
        try:
            refusal = await ask.outcome
        except BaseException:
            # Its client has gone.
            if ask.is_granted:
                self.release(key)
            raise
        finally:
            timer.cancel()
        if refusal is not None:
            raise refusal

    def release(self, key: LimitKey) -> None:
        tally = self._shared_counters.get(key)
        if tally is not None:
            tally.release()
            self._report(key, tally)

    @property
    def tracked_count(self) -> int:
        """How many addresses and users are remembered."""
        return len(self._shared_counters)

    # --- inside

    def _report(self, holder: LimitKey, tally: SharedCounter, gone: tuple[bytes, ...] = ()) -> None:
        asks = tally.next_batch()
        if asks is None:
            self._forget_idle(holder, tally)
            return
        said, node, quota = tally.held, self._liveness.node, tally.limit
        command = evaluate(
            COUNT,
            [self._keys.connection_counts(holder)],
            node.encode(),
            said,
            len(asks),
            sum(not each.is_attempt_counted for each in asks),
            quota.connections,
            str(quota.attempts_per_second).encode(),
            str(quota.burst).encode(),
            int(self._clock.time() * 1000),
            *gone,
        )
        tally.in_flight = asks
        try:
            answer = self._pipeline.submit(command)
        except FloorcastError:
            # It was not even sent: Redis thinks what it thought.
            self._on_failure(holder, tally)
            self._forget_idle(holder, tally)
            return
        self._in_flight += 1
        answer.add_done_callback(partial(self._on_reply, holder, tally, said, node))

    def _on_reply(
        self,
        holder: LimitKey,
        tally: SharedCounter,
        said: int,
        node: str,
        answer: "asyncio.Future[Reply]",
    ) -> None:
        self._in_flight -= 1
        if answer.cancelled() or answer.exception() is not None:
            tally.reported = None
            self._on_failure(holder, tally)
            return
        self._degraded = False
        granted, within, wait_ms, others = answer.result()
        gone = tuple(each for each in others if each in self._liveness.dead_nodes)
        full = partial(too_many_connections, holder, tally.limit.connections)
        tally.apply_reply(said, granted, within, wait_ms, retry=bool(gone), full_error=full)
        if gone or node != self._liveness.node:
            # It has to be said once more: without the dead, or by another name.
            tally.reported = None
        tally.reported_at = self._clock.monotonic()
        self._shared_counters.move_to_end(holder)
        self._report(holder, tally, gone)
        self._report_more()

    def _on_failure(self, holder: LimitKey, tally: SharedCounter) -> None:
        self._degraded = True
        self._failed[holder] = None
        for ask in tally.abandon():
            self._grant_locally(tally, ask)

    def _forget_idle(self, holder: LimitKey, tally: SharedCounter) -> None:
        """While Redis is away too: strangers may come and go then without end."""
        if tally.is_idle:
            self._shared_counters.pop(holder, None)
            self._failed.pop(holder, None)

    def _grant_locally(self, tally: SharedCounter, ask: AcquireRequest) -> None:
        self._counters.add("limits.local")
        tally.grant(ask)

    def _on_timeout(self, tally: SharedCounter, ask: AcquireRequest) -> None:
        if not ask.outcome.done():
            self._degraded = True
            self._grant_locally(tally, ask)

    def _on_beat(self, lost: bool) -> None:
        long_ago = self._clock.monotonic() - _REPORT_INTERVAL_SECONDS
        for holder, tally in self._shared_counters.items():
            if not lost and tally.reported_at > long_ago:
                break
            tally.reported = None
            self._unreported[holder] = None
        self._unreported.update(self._failed)
        self._failed.clear()
        self._report_more()

    def _report_more(self) -> None:
        while self._unreported and self._in_flight < _MAX_IN_FLIGHT:
            holder = next(iter(self._unreported))
            del self._unreported[holder]
            tally = self._shared_counters.get(holder)
            if tally is not None:
                self._report(holder, tally)
