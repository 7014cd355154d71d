"""The notice store for many nodes: Redis has the pending notices, and no node has a copy."""

import asyncio
import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from server.brokers.failure_log import FailureLog
from server.brokers.redis.broker import RedisBroker
from server.brokers.redis.config import RedisConfig
from server.brokers.redis.connection.client import Call, evaluate
from server.brokers.redis.connection.keys import Keys, notice_keys
from server.brokers.redis.connection.pipeline import broker_unavailable
from server.brokers.redis.connection.replies import (
    Reply,
    as_bytes,
    as_bytes_list,
    as_int,
    as_list,
)
from server.brokers.redis.log.scripts import Script
from server.brokers.redis.notices.codec import (
    decode_notice,
    encode_notice,
    is_indexed,
    notice_key,
    user_prefix,
)
from server.brokers.redis.notices.scripts import (
    ACKNOWLEDGE,
    CLEAN_INDEX,
    EXPIRE,
    POST,
    READ,
    REINDEX,
    REINDEX_PENDING,
)
from server.core.errors import FloorcastError
from server.core.sessions.notices import Notice, NoticeLimits
from server.ports import Clock, OnNotice
from server.tasks import cancel_and_wait

# The channel that every node watches.
CHANNEL = "notices"
_SYNC_SECONDS = 2.0
# Searching the whole index for what a process of the release before has changed.
_REBUILD_SECONDS = 30.0
# A client that connects waits no longer for its notices: they follow later.
_READ_SECONDS = 0.3
_BATCH_SIZE = 256
_MAX_UNFLUSHED = 100_000


class RedisNoticeStore:
    """Implements `NoticeStore`; `pending` is one read of the user's notices alone."""

    def __init__(
        self, clock: Clock, config: RedisConfig, broker: RedisBroker, limits: NoticeLimits
    ) -> None:
        self._clock = clock
        self._broker = broker
        self._limits = limits
        self._keep_ms = int(limits.keep_seconds * 1000)
        self._timeout_seconds = config.timeout_seconds
        self._base = Keys(config.prefix).base(CHANNEL)
        self._keys = notice_keys(self._base)
        self._on_notice: OnNotice = lambda notice, critical: 0
        # Acknowledged on this node, not in Redis yet.
        self._unflushed: OrderedDict[bytes, Notice] = OrderedDict()
        # Changed by processes of the release before, which keep no index.
        self._unindexed: OrderedDict[bytes, None] = OrderedDict()
        self._next_sync_at = 0.0
        self._next_rebuild_at = 0.0
        self._stale = True
        self._wakeup = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failure_log = FailureLog()
        # Dropped by this node and by no other, since the last sweep.
        self._expired: list[Notice] = []
        self.dropped_count = 0

    async def start(self, on_notice: OnNotice) -> None:
        self._on_notice = on_notice
        self._broker.add_listener(self._on_message, self._on_up)
        self._task = self._broker.tasks.keep(self._sync_loop, "floorcast-notices")
        self._wakeup.set()

    async def stop(self) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
            with contextlib.suppress(FloorcastError, TimeoutError):
                async with asyncio.timeout(self._timeout_seconds):
                    await self._flush()
        self._on_notice = lambda notice, critical: 0

    async def post(self, notice: Notice, *, critical: bool) -> int | None:
        now_ms = self._now_ms()
        message = encode_notice(notice, critical, now_ms + self._keep_ms)
        if not critical:
            await self._broker.run((b"PUBLISH", self._base, message))
            return None
        limits = self._limits
        reply = await self._run(
            POST,
            *(self._base, message, notice_key(notice), now_ms),
            user_prefix(notice.org, notice.user_id),
            *(limits.per_user, limits.org.count, limits.org.size_bytes),
            *(limits.total.count, limits.total.size_bytes),
        )
        is_new, evicted = map(as_int, as_list(reply))
        self.dropped_count += evicted
        return None if is_new else 0

    def pending(self, org: str, user_id: str) -> asyncio.Future[tuple[Notice, ...]]:
        # The index of names, and the notices.
        keys = (self._keys[0], self._keys[2])
        reply = self._broker.submit(evaluate(READ, keys, user_prefix(org, user_id)))
        loop = asyncio.get_running_loop()
        limit = loop.call_later(_READ_SECONDS, _time_out, reply)
        read: asyncio.Future[tuple[Notice, ...]] = loop.create_future()
        reply.add_done_callback(partial(self._on_read, read, limit))
        return read

    def acknowledge(self, notice: Notice) -> None:
        self._unflushed[notice_key(notice)] = notice
        if len(self._unflushed) > _MAX_UNFLUSHED:
            # The user gets the dropped one again, and acknowledges it again.
            self._unflushed.popitem(last=False)
        self._wakeup.set()

    def sweep(self) -> Sequence[Notice]:
        if self._clock.monotonic() >= self._next_sync_at:
            self._wakeup.set()
        expired, self._expired = self._expired, []
        return expired

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)

    async def _run(self, script: Script, *arguments: bytes | int) -> Reply:
        return await self._broker.run(self._call(script, *arguments))

    def _call(self, script: Script, *arguments: bytes | int) -> Call:
        return evaluate(script, self._keys, self._base + b":org:", *arguments)

    def _on_read(
        self,
        read: "asyncio.Future[tuple[Notice, ...]]",
        limit: asyncio.TimerHandle,
        reply: "asyncio.Future[Reply]",
    ) -> None:
        limit.cancel()
        if read.done() or reply.cancelled():
            read.cancel()
            return
        try:
            read.set_result(self._decode(as_bytes_list(reply.result())))
        except FloorcastError as error:
            read.set_exception(error)

    def _decode(self, found: list[bytes]) -> tuple[Notice, ...]:
        """The valid notices, oldest first."""
        now_ms, numbered = self._now_ms(), []
        for value in found:
            number, _, message = value.partition(b" ")
            decoded = decode_notice(message)
            if decoded is None or not number.isdigit() or decoded[2] <= now_ms:
                continue
            if notice_key(decoded[1]) not in self._unflushed:
                numbered.append((int(number), decoded[1]))
        return tuple(notice for _, notice in sorted(numbered, key=lambda each: each[0]))

    # --- what other nodes post

    def _on_up(self) -> None:
        self._stale = True
        self._wakeup.set()

    def _on_message(self, channel: str, message: bytes) -> bool:
        if channel != CHANNEL:
            return False
        decoded = decode_notice(message)
        if decoded is None:
            return False
        status, notice, _ = decoded
        if status != "notice" and not is_indexed(message):
            self._enqueue_reindex(notice_key(notice))
        if status != "seen":
            try:
                self._on_notice(notice, status == "critical")
            except Exception as failure:
                # A failing callback must not stop later notices.
                self._failure_log.report(failure)
        return True

    def _enqueue_reindex(self, name: bytes) -> None:
        self._unindexed[name] = None
        if len(self._unindexed) > _MAX_UNFLUSHED:
            # The next rebuild finds it.
            self._unindexed.popitem(last=False)
        self._wakeup.set()

    # --- bringing Redis to what this node knows

    async def _sync_loop(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            try:
                if self._stale:
                    await self._rebuild_index()
                await self._flush()
                if self._clock.monotonic() >= self._next_sync_at:
                    await self._expire()
            except FloorcastError:
                # Redis is down or out of memory: retry with the next sync.
                continue

    async def _flush(self) -> None:
        while self._unflushed:
            batch = list(itertools.islice(self._unflushed.items(), _BATCH_SIZE))
            await asyncio.gather(*(self._flush_one(name, notice) for name, notice in batch))
            for name, _ in batch:
                self._unflushed.pop(name, None)
        while self._unindexed:
            names = list(itertools.islice(self._unindexed, _BATCH_SIZE))
            await self._run(REINDEX, *names)
            for name in names:
                self._unindexed.pop(name, None)

    async def _flush_one(self, name: bytes, notice: Notice) -> None:
        until_ms = self._now_ms() + self._keep_ms
        message = encode_notice(notice, critical=True, until_ms=until_ms, status="seen")
        await self._run(ACKNOWLEDGE, self._base, message, name, until_ms)

    async def _expire(self) -> None:
        """Drop what has expired, for all nodes; rebuild an incomplete index."""
        now = self._clock.monotonic()
        self._next_sync_at = now + _SYNC_SECONDS
        is_complete = await self._expire_some()
        while is_complete is None:
            is_complete = await self._expire_some()
        if not is_complete and now >= self._next_rebuild_at:
            self._next_rebuild_at = now + _REBUILD_SECONDS
            await self._rebuild_index()

    async def _expire_some(self) -> bool | None:
        """Drop a part of what has expired; then whether the index is complete, None for more."""
        expired, is_complete = as_list(await self._run(EXPIRE, self._now_ms()))
        for value in as_bytes_list(expired):
            decoded = decode_notice(value.partition(b" ")[2])
            if decoded is not None and len(self._expired) < _MAX_UNFLUSHED:
                self._expired.append(decoded[1])
        return None if expired else bool(is_complete)

    async def _rebuild_index(self) -> None:
        """Index what processes of the release before have posted and acknowledged unnoticed."""
        self._stale = False
        try:
            await self._broker.watch(CHANNEL)
            cursor: bytes | int = 0
            while cursor not in (b"0", b""):
                cursor = as_bytes(await self._run(REINDEX_PENDING, cursor))
            last = await self._run(CLEAN_INDEX, b"")
            while last:
                last = await self._run(CLEAN_INDEX, as_bytes(last))
        except FloorcastError:
            self._stale = True
            raise


def _time_out(reply: "asyncio.Future[Reply]") -> None:
    if not reply.done():
        reply.set_exception(broker_unavailable())
