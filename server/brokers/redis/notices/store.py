"""The notice store for many nodes: Redis stores pending notices, each node has a copy."""

import asyncio
import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Sequence

from server.brokers.failure_log import FailureLog
from server.brokers.redis.broker import RedisBroker
from server.brokers.redis.config import RedisConfig
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.replies import as_bytes, as_list, as_mapping
from server.brokers.redis.notices.codec import (
    decode_notice,
    encode_key,
    encode_notice,
    notice_key,
)
from server.core.errors import FloorcastError
from server.core.sessions.notices import Notice, Notices
from server.ports import Clock, OnNotice
from server.tasks import cancel_and_wait

# The channel that every node watches.
CHANNEL = "notices"
_SYNC_SECONDS = 2.0
_BATCH_SIZE = 256
_MAX_UNFLUSHED = 100_000

# KEYS: pending notices by key, with their numbers, and the last number (#); acknowledged keys by
# expiry. ARGV: the pub/sub channel, the encoded notice, its key, the time in ms.
# Returns 1 if the notice is new.
_POST = b"""
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[4])
if redis.call('HEXISTS', KEYS[1], ARGV[3]) == 1 or redis.call('ZSCORE', KEYS[2], ARGV[3]) then
  return 0
end
local number = redis.call('HINCRBY', KEYS[1], '#', 1)
redis.call('HSET', KEYS[1], ARGV[3], string.format('%d ', number) .. ARGV[2])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
"""

# The same KEYS. ARGV: the pub/sub channel, the encoded acknowledgement, the notice's key, its
# expiry in ms. Returns 1 if the notice was pending.
_ACKNOWLEDGE = b"""
if redis.call('HDEL', KEYS[1], ARGV[3]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
"""


class RedisNoticeStore:
    """Implements `NoticeStore`; `pending` reads the local copy, without a round trip."""

    def __init__(
        self,
        clock: Clock,
        config: RedisConfig,
        broker: RedisBroker,
        notices: Notices,
        *,
        keep_seconds: float,
    ) -> None:
        self._clock = clock
        self._broker = broker
        self._notices = notices
        self._keep_ms = int(keep_seconds * 1000)
        self._timeout_seconds = config.timeout_seconds
        self._base = Keys(config.prefix).base(CHANNEL)
        self._keys = (self._base + b":waiting", self._base + b":settled")
        self._on_notice: OnNotice = lambda notice, critical: 0
        # Acknowledged on this node, not in Redis yet.
        self._unflushed: OrderedDict[bytes, Notice] = OrderedDict()
        # Dropped by this node's copy, not in Redis yet.
        self._undeleted: OrderedDict[bytes, None] = OrderedDict()
        self._next_sync_at = 0.0
        self._stale = True
        self._wakeup = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failure_log = FailureLog()

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

    @property
    def dropped_count(self) -> int:
        return self._notices.dropped_count

    async def post(self, notice: Notice, *, critical: bool) -> int | None:
        now_ms = self._now_ms()
        message = encode_notice(notice, critical, now_ms + self._keep_ms)
        if not critical:
            await self._broker.run((b"PUBLISH", self._base, message))
            return None
        new = await self._broker.run(
            (b"EVAL", _POST, 2, *self._keys, self._base, message, notice_key(notice), now_ms)
        )
        return None if new else 0

    def pending(self, org: str, user_id: str) -> tuple[Notice, ...]:
        return self._notices.pending(org, user_id, self._clock.monotonic())

    def acknowledge(self, notice: Notice) -> None:
        self._remove(notice)
        self._unflushed[notice_key(notice)] = notice
        if len(self._unflushed) > _MAX_UNFLUSHED:
            # The user gets the dropped one again, and acknowledges it again.
            self._unflushed.popitem(last=False)
        self._wakeup.set()

    def sweep(self) -> Sequence[Notice]:
        for (org, user_id), notice_id in self._notices.sweep(self._clock.monotonic()):
            self._undeleted[encode_key(org, user_id, notice_id)] = None
            if len(self._undeleted) > _MAX_UNFLUSHED:
                # The next reload finds it expired, or drops it again.
                self._undeleted.popitem(last=False)
        if self._clock.monotonic() >= self._next_sync_at:
            self._wakeup.set()
        return self._notices.pop_expired()

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)

    def _remove(self, notice: Notice) -> None:
        now = self._clock.monotonic()
        self._notices.acknowledge(notice.org, notice.user_id, notice.id, now)

    def _on_up(self) -> None:
        self._stale = True
        self._wakeup.set()

    def _on_message(self, channel: str, message: bytes) -> bool:
        if channel != CHANNEL:
            return False
        decoded = decode_notice(message)
        if decoded is None:
            return False
        self._apply(*decoded)
        return True

    def _apply(self, status: str, notice: Notice, until_ms: int) -> None:
        if status == "seen":
            self._remove(notice)
            return
        critical = status == "critical"
        if critical:
            now = self._clock.monotonic()
            until = now + (until_ms - self._now_ms()) / 1000
            if not self._notices.put(notice, now, expires_at=until):
                return
        try:
            self._on_notice(notice, critical)
        except Exception as failure:
            # A failing callback must not stop later notices.
            self._failure_log.report(failure)

    async def _sync_loop(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            self._next_sync_at = self._clock.monotonic() + _SYNC_SECONDS
            try:
                if self._stale:
                    await self._reload()
                await self._flush()
            except FloorcastError:
                # Redis is down or out of memory: retry with the next sync.
                continue

    async def _flush(self) -> None:
        while self._unflushed:
            batch = list(itertools.islice(self._unflushed.items(), _BATCH_SIZE))
            await asyncio.gather(*(self._flush_one(name, notice) for name, notice in batch))
            for name, _ in batch:
                self._unflushed.pop(name, None)
        while self._undeleted:
            names = list(itertools.islice(self._undeleted, _BATCH_SIZE))
            await self._delete(names)
            for name in names:
                self._undeleted.pop(name, None)

    async def _flush_one(self, name: bytes, notice: Notice) -> None:
        until_ms = self._now_ms() + self._keep_ms
        message = encode_notice(notice, critical=True, until_ms=until_ms, status="seen")
        await self._broker.run(
            (b"EVAL", _ACKNOWLEDGE, 2, *self._keys, self._base, message, name, until_ms)
        )

    async def _reload(self) -> None:
        """Apply what this node missed, in the order of posting."""
        self._stale = False
        try:
            await self._broker.watch(CHANNEL)
            # Before the read, which may not find what arrives during it.
            known = {notice_key(notice): notice for notice in self._notices.all()}
            found = await self._fetch_all()
        except FloorcastError:
            self._stale = True
            raise
        for name in known.keys() - found.keys():
            self._remove(known[name])
        now_ms = self._now_ms()
        expired = []
        for name, decoded in found.items():
            if decoded is None or decoded[2] <= now_ms:
                expired.append(name)
            elif name not in self._unflushed:
                self._apply(*decoded)
        for at in range(0, len(expired), _BATCH_SIZE):
            await self._delete(expired[at : at + _BATCH_SIZE])

    async def _delete(self, names: list[bytes]) -> None:
        await self._broker.run((b"HDEL", self._keys[0], *names))

    async def _fetch_all(self) -> dict[bytes, tuple[str, Notice, int] | None]:
        """All notices pending in Redis, oldest first; None for malformed ones."""
        found: dict[bytes, bytes] = {}
        cursor = b"0"
        while True:
            command = (b"HSCAN", self._keys[0], cursor, b"COUNT", _BATCH_SIZE)
            next_cursor, page = as_list(await self._broker.run(command))
            cursor = as_bytes(next_cursor)
            found.update(as_mapping(page))
            if cursor == b"0":
                break
        found.pop(b"#", None)
        numbered = ((name, *message.partition(b" ")[::2]) for name, message in found.items())
        ordered = sorted(numbered, key=lambda each: int(each[1]) if each[1].isdigit() else 0)
        return {name: decode_notice(message) for name, _, message in ordered}
