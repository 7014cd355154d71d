"""Limits the connections of an address or user over all nodes, counted in Redis."""

import asyncio
from collections import OrderedDict
from functools import partial

from server.brokers.redis.connection.client import evaluate
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.node_session import NodeSession
from server.brokers.redis.connection.replies import Reply
from server.brokers.redis.limits.scripts import COUNT, COUNT_TTL_MS
from server.brokers.redis.limits.shared_counter import AcquireRequest, SharedCounter
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.limits.keys import LimitKey, LimitKeys, too_many_connections
from server.ports import Clock

# Short enough that clients do not notice; Redis is rarely this slow.
DECISION_TIMEOUT_SECONDS = 0.3
_REPORT_INTERVAL_SECONDS = COUNT_TTL_MS / 3000
# Bounds the reports in flight when Redis lost its counts.
_MAX_IN_FLIGHT = 256


class RedisSharedLimits:
    """Implements `SharedLimits`; a node's counts are valid while it sends heartbeats.

    Counts of dead nodes are removed lazily: by a node whose request exceeds the limit, or that
    reports its own count again.
    """

    def __init__(
        self,
        clock: Clock,
        counters: Counters,
        limits: LimitKeys,
        session: NodeSession,
        *,
        prefix: str,
        timeout_seconds: float = DECISION_TIMEOUT_SECONDS,
    ) -> None:
        self._clock = clock
        self._counters = counters
        self._limits = limits
        self._keys = Keys(prefix)
        session.use_scripts((COUNT,))
        self._pipeline = session.pipeline
        self._session = session
        self._timeout_seconds = timeout_seconds
        # The counter reported longest ago comes first.
        self._shared_counters: OrderedDict[LimitKey, SharedCounter] = OrderedDict()
        # To report as soon as possible, and after the next heartbeat.
        self._unreported: dict[LimitKey, None] = {}
        self._failed: dict[LimitKey, None] = {}
        self._in_flight = 0
        self._degraded = False
        self._session.add_listener(self._on_beat)

    @property
    def is_degraded(self) -> bool:
        return self._degraded

    async def acquire(self, key: LimitKey) -> None:
        limit = self._limits.limit_for(key)
        if limit.is_unlimited:
            return
        counter = self._shared_counters.get(key)
        if counter is None:
            counter = self._shared_counters[key] = SharedCounter(limit, self._clock.monotonic())
        request = AcquireRequest()
        if self._degraded:
            # Do not wait: the reply to the report shows if Redis is back.
            self._grant_locally(counter, request)
            self._report(key, counter)
            return
        counter.enqueue(request)
        self._report(key, counter)
        # Not `asyncio.timeout`: handlers run without a task until their first await.
        timer = asyncio.get_running_loop().call_later(
            self._timeout_seconds, self._on_timeout, counter, request
        )
        try:
            refusal = await request.outcome
        except BaseException:
            # Cancelled: the client disconnected.
            if request.is_granted:
                self.release(key)
            raise
        finally:
            timer.cancel()
        if refusal is not None:
            raise refusal

    def release(self, key: LimitKey) -> None:
        counter = self._shared_counters.get(key)
        if counter is not None:
            counter.release()
            self._report(key, counter)

    @property
    def tracked_count(self) -> int:
        """The number of addresses and users with a counter."""
        return len(self._shared_counters)

    def _report(self, key: LimitKey, counter: SharedCounter, dead: tuple[bytes, ...] = ()) -> None:
        batch = counter.next_batch()
        if batch is None:
            self._forget_idle(key, counter)
            return
        reported, node, limit = counter.held, self._session.node, counter.limit
        command = evaluate(
            COUNT,
            [self._keys.connection_counts(key)],
            node.encode(),
            reported,
            len(batch),
            sum(not each.is_attempt_counted for each in batch),
            limit.connections,
            str(limit.attempts_per_second).encode(),
            str(limit.burst).encode(),
            int(self._clock.time() * 1000),
            *dead,
        )
        counter.in_flight = batch
        try:
            reply = self._pipeline.submit(command)
        except FloorcastError:
            # Not sent, so the last reported count still holds.
            self._on_failure(key, counter)
            self._forget_idle(key, counter)
            return
        self._in_flight += 1
        reply.add_done_callback(partial(self._on_reply, key, counter, reported, node))

    def _on_reply(
        self,
        key: LimitKey,
        counter: SharedCounter,
        reported: int,
        node: str,
        reply: "asyncio.Future[Reply]",
    ) -> None:
        self._in_flight -= 1
        counted = _decode(reply)
        if counted is None:
            counter.reported = None
            self._on_failure(key, counter)
            return
        self._degraded = False
        granted, within_rate, wait_ms, others = counted
        dead = tuple(each for each in others if each in self._session.dead_nodes)
        full_error = partial(too_many_connections, key, counter.limit.connections)
        counter.apply_reply(
            reported, granted, within_rate, wait_ms, retry=bool(dead), full_error=full_error
        )
        if dead or node != self._session.node:
            # Report again: without the dead nodes, or under the node's new name.
            counter.reported = None
        counter.reported_at = self._clock.monotonic()
        self._shared_counters.move_to_end(key)
        self._report(key, counter, dead)
        self._report_more()

    def _on_failure(self, key: LimitKey, counter: SharedCounter) -> None:
        self._degraded = True
        self._failed[key] = None
        for request in counter.abandon():
            self._grant_locally(counter, request)

    def _forget_idle(self, key: LimitKey, counter: SharedCounter) -> None:
        """Drop an idle counter, also while Redis is down: the number of addresses is unbounded."""
        if counter.is_idle:
            self._shared_counters.pop(key, None)
            self._failed.pop(key, None)

    def _grant_locally(self, counter: SharedCounter, request: AcquireRequest) -> None:
        self._counters.add("limits.local")
        counter.grant(request)

    def _on_timeout(self, counter: SharedCounter, request: AcquireRequest) -> None:
        if not request.outcome.done():
            self._degraded = True
            self._grant_locally(counter, request)

    def _on_beat(self, lost: bool) -> None:
        long_ago = self._clock.monotonic() - _REPORT_INTERVAL_SECONDS
        for key, counter in self._shared_counters.items():
            if not lost and counter.reported_at > long_ago:
                break
            counter.reported = None
            self._unreported[key] = None
        self._unreported.update(self._failed)
        self._failed.clear()
        self._report_more()

    def _report_more(self) -> None:
        while self._unreported and self._in_flight < _MAX_IN_FLIGHT:
            key = next(iter(self._unreported))
            del self._unreported[key]
            counter = self._shared_counters.get(key)
            if counter is not None:
                self._report(key, counter)


def _decode(reply: "asyncio.Future[Reply]") -> tuple[int, int, int, list[bytes]] | None:
    """What the script returned; None without a valid reply."""
    if reply.cancelled() or reply.exception() is not None:
        return None
    match reply.result():
        case [int() as granted, int() as within_rate, int() as wait_ms, list() as others]:
            nodes = [each for each in others if isinstance(each, bytes)]
            return granted, within_rate, wait_ms, nodes
    return None
