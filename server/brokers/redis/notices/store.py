"""A notice board for many nodes: Redis keeps what waits, every node has a copy to greet with."""

import asyncio
import contextlib
import itertools
from collections import OrderedDict

from server.brokers.failures import Failures
from server.brokers.redis.broker import RedisBroker, RedisConfig
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.notices.codec import name_of, read_notice, write_notice
from server.core.errors import FloorcastError
from server.core.sessions.notices import Notice, Notices
from server.ports import Clock, HearNotice

# The pub/sub channel that every node hears.
CHANNEL = "notices"
_LOOK_SECONDS = 2.0
_MANY = 256
_MAX_UNSAID = 100_000

# KEYS: what waits, each with its number, and the last number; what was settled and until when.
# ARGV: where it is told, the notice as it is told, its name, the time in ms. Answers whether it is
# new.
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

# The same keys. ARGV: where it is told, what is told, the name of the notice, until when it is
# remembered. Answers whether it waited.
_SETTLE = b"""
if redis.call('HDEL', KEYS[1], ARGV[3]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
"""


class RedisNoticeBoard:
    """Fills the `NoticeBoard` port; connecting costs no round trip."""

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
        self._spoken = Keys(config.prefix).spoken(CHANNEL)
        self._keys = (self._spoken + b":waiting", self._spoken + b":settled")
        self._hear: HearNotice = lambda notice, critical: 0
        # Acknowledged here, which Redis has not heard yet.
        self._unsaid: OrderedDict[bytes, Notice] = OrderedDict()
        self._next_look = 0.0
        self._stale = True
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = Failures()

    async def start(self, hear: HearNotice) -> None:
        self._hear = hear
        self._broker.overhear(self._on_said, self._on_up)
        self._task = asyncio.create_task(self._keep_looking(), name="floorcast-notices")
        self._work.set()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            with contextlib.suppress(FloorcastError, TimeoutError):
                async with asyncio.timeout(self._timeout_seconds):
                    await self._settle_all()
        self._hear = lambda notice, critical: 0

    @property
    def dropped_count(self) -> int:
        return self._notices.dropped_count

    async def post(self, notice: Notice, *, critical: bool) -> int | None:
        now_ms = self._now_ms()
        told = write_notice(notice, critical, now_ms + self._keep_ms)
        if not critical:
            await self._broker.run((b"PUBLISH", self._spoken, told))
            return None
        new = await self._broker.run(
            (b"EVAL", _POST, 2, *self._keys, self._spoken, told, name_of(notice), now_ms)
        )
        return None if new else 0

    def waiting(self, org: str, user_id: str) -> tuple[Notice, ...]:
        return self._notices.waiting(org, user_id, self._clock.monotonic())

    def acknowledge(self, notice: Notice) -> None:
        self._settle_here(notice)
        self._unsaid[name_of(notice)] = notice
        if len(self._unsaid) > _MAX_UNSAID:
            # It is asked for once more.
            self._unsaid.popitem(last=False)
        self._work.set()

    def sweep(self) -> None:
        self._notices.expire(self._clock.monotonic())
        if self._clock.monotonic() >= self._next_look:
            self._work.set()

    # --- inside

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)

    def _settle_here(self, notice: Notice) -> None:
        now = self._clock.monotonic()
        self._notices.acknowledge(notice.org, notice.user_id, notice.id, now)

    def _on_up(self) -> None:
        self._stale = True
        self._work.set()

    def _on_said(self, channel: str, message: bytes) -> bool:
        if channel != CHANNEL:
            return False
        told = read_notice(message)
        if told is None:
            return False
        self._take(*told)
        return True

    def _take(self, said: str, notice: Notice, until_ms: int) -> None:
        if said == "seen":
            self._settle_here(notice)
            return
        critical = said == "critical"
        if critical:
            now = self._clock.monotonic()
            until = now + (until_ms - self._now_ms()) / 1000
            if not self._notices.put(notice, now, until=until):
                return
        try:
            self._hear(notice, critical)
        except Exception as failure:
            # What fails there is not ours: the next one is told all the same.
            self._failures.report(failure)

    async def _keep_looking(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            self._next_look = self._clock.monotonic() + _LOOK_SECONDS
            try:
                if self._stale:
                    await self._read_all()
                await self._settle_all()
            except FloorcastError:
                # Redis has gone, or is full: with the next look.
                continue

    async def _settle_all(self) -> None:
        while self._unsaid:
            some = list(itertools.islice(self._unsaid.items(), _MANY))
            await asyncio.gather(*(self._settle(name, notice) for name, notice in some))
            for name, _ in some:
                self._unsaid.pop(name, None)

    async def _settle(self, name: bytes, notice: Notice) -> None:
        until_ms = self._now_ms() + self._keep_ms
        told = write_notice(notice, critical=True, until_ms=until_ms, said="seen")
        await self._broker.run(
            (b"EVAL", _SETTLE, 2, *self._keys, self._spoken, told, name, until_ms)
        )

    async def _read_all(self) -> None:
        """What was told while nobody heard, in the order of its time."""
        self._stale = False
        try:
            await self._broker.watch(CHANNEL)
            found = await self._all()
        except FloorcastError:
            self._stale = True
            raise
        known = {name_of(notice): notice for notice in self._notices.all()}
        for name in known.keys() - found.keys():
            self._settle_here(known[name])
        now_ms = self._now_ms()
        old = []
        for name, told in found.items():
            if told is None or told[2] <= now_ms:
                old.append(name)
            elif name not in self._unsaid:
                self._take(*told)
        for at in range(0, len(old), _MANY):
            await self._broker.run((b"HDEL", self._keys[0], *old[at : at + _MANY]))

    async def _all(self) -> dict[bytes, tuple[str, Notice, int] | None]:
        """Everything that waits in Redis, in its order."""
        found: dict[bytes, bytes] = {}
        cursor = b"0"
        while True:
            command = (b"HSCAN", self._keys[0], cursor, b"COUNT", _MANY)
            cursor, flat = await self._broker.run(command)
            found.update(zip(flat[::2], flat[1::2], strict=True))
            if cursor == b"0":
                break
        found.pop(b"#", None)
        numbered = ((name, *message.partition(b" ")[::2]) for name, message in found.items())
        ordered = sorted(numbered, key=lambda each: int(each[1]))
        return {name: read_notice(message) for name, _, message in ordered}
