"""The kept values of many nodes, in Redis; each node has copies of the kinds it follows."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from server.brokers.errors import BrokerError
from server.brokers.failure_log import FailureLog
from server.brokers.redis.broker import RedisBroker
from server.brokers.redis.config import RedisConfig
from server.brokers.redis.connection.keys import Keys, kept_channel
from server.brokers.redis.connection.replies import (
    as_bytes,
    as_list,
    as_mapping,
    as_number,
    as_optional_bytes,
)
from server.core.errors import FloorcastError
from server.core.kept import KeptCopies, KeptLimits, KeptValue, too_many_kept
from server.ports import Clock, OnKeptChange
from server.tasks import cancel_and_wait

_RETRY_SECONDS = 1.0
# A kind outlives its values for so long, with the number of its last change.
_IDLE_MS = 86_400_000
# Changes that arrive while a kind is read; with more of them it is read again.
_MAX_WAITING = 10_000

# In both: KEYS: the values, their keys by expiry. The values have the number of the last change as
# '#', their own fields begin with '='. A kind that begins anew goes on from the time, which is
# beyond any number that a node remembers.
_NUMBER = """
local function announce(now, channel, changes)
  if redis.call('HEXISTS', KEYS[1], '#') == 0 then redis.call('HSET', KEYS[1], '#', now) end
  local number = string.format('%.0f', redis.call('HINCRBY', KEYS[1], '#', 1))
  redis.call('PUBLISH', channel, 'kept1 ' .. number .. changes)
  return number
end
"""

# ARGV: the pub/sub channel, the changes as published, the time, when the values expire, how long
# the kind lasts, the most values; then keys and values. Returns the number of the change, or ''.
_PUT = (
    _NUMBER
    + """
local now, until_ms = ARGV[3], ARGV[4]
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)) do
  redis.call('HDEL', KEYS[1], '=' .. key)
  redis.call('ZREM', KEYS[2], key)
end
local count = redis.call('HLEN', KEYS[1])
for i = 7, #ARGV, 2 do count = count + 1 - redis.call('HEXISTS', KEYS[1], '=' .. ARGV[i]) end
if count > tonumber(ARGV[6]) + 1 then return '' end
for i = 7, #ARGV, 2 do
  redis.call('HSET', KEYS[1], '=' .. ARGV[i], until_ms .. ' ' .. ARGV[i + 1])
  redis.call('ZADD', KEYS[2], until_ms, ARGV[i])
end
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
local rest = string.format('%.0f', math.max(1, tonumber(last[2]) - tonumber(now)) + ARGV[5])
local number = announce(now, ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], rest)
redis.call('PEXPIRE', KEYS[2], rest)
return number
"""
).encode()

# ARGV: the pub/sub channel, the change as published, the time, the key. Returns the number of the
# change and the value, or nothing.
_DELETE = (
    _NUMBER
    + """
local value = redis.call('HGET', KEYS[1], '=' .. ARGV[4])
if not value then return {} end
redis.call('HDEL', KEYS[1], '=' .. ARGV[4])
redis.call('ZREM', KEYS[2], ARGV[4])
return {announce(ARGV[3], ARGV[1], ARGV[2]), value}
"""
).encode()

# As a script: a Cluster's client would turn the reply of the plain command into a dict.
_READ = b"return redis.call('HGETALL', KEYS[1])"

# The time of a deleted value is 0.
_CHANGE = re.compile(rb" (\d{1,16}) (\d{1,9}) (\d{1,9}) ")

Changes = Mapping[str, KeptValue]


@dataclass(slots=True)
class _Followed:
    """How far this node knows the changes of a kind."""

    kind: str
    # The number of the newest change; None until the values are read.
    number: int | None = None
    # What has arrived while the values are read.
    waiting: list[tuple[int, Changes]] = field(default_factory=list)


class RedisKeptValues:
    """Implements `KeptValues`: each change has a number, so that a node notices a missed one."""

    def __init__(
        self,
        clock: Clock,
        config: RedisConfig,
        broker: RedisBroker,
        limits: KeptLimits | None = None,
    ) -> None:
        self._clock = clock
        self._broker = broker
        self._keys = Keys(config.prefix)
        self._limits = limits or KeptLimits()
        self._copies = KeptCopies()
        self._followed: dict[str, _Followed] = {}
        self._wakeup = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failure_log = FailureLog()

    def follow(self, kind: str, on_change: OnKeptChange) -> None:
        self._copies.follow(kind, on_change)

    async def start(self) -> None:
        self._copies.clear()
        self._followed = {kept_channel(kind): _Followed(kind) for kind in self._copies.kinds}
        if not self._followed:
            return
        self._broker.add_listener(self._on_message, self._on_up)
        try:
            await self._read_unknown()
        except FloorcastError as error:
            raise BrokerError(error.message) from None
        self._task = self._broker.tasks.keep(self._read_loop, "floorcast-kept")

    async def stop(self) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
        self._followed = {}
        self._copies.clear()

    async def put(self, kind: str, values: Mapping[str, bytes], *, expires_at: float) -> None:
        self._limits.check(values)
        now_ms, until_ms = self._now_ms(), int(expires_at * 1000)
        if not values or until_ms <= now_ms:
            return
        changes = {key: KeptValue(data, until_ms) for key, data in values.items()}
        number = await self._broker.run(
            (
                *(b"EVAL", _PUT, 2, *self._keys.kept(kind)),
                *(self._base(kind), _encode(changes), now_ms, until_ms, _IDLE_MS),
                self._limits.max_values,
                *(part for key, data in values.items() for part in (key.encode(), data)),
            ),
            durable=True,
        )
        if not number:
            raise too_many_kept(kind)
        self._apply_own(kind, as_number(number), changes)

    async def get(self, kind: str, key: str) -> bytes | None:
        field_name = b"=" + key.encode()
        found = as_optional_bytes(
            await self._broker.run((b"HGET", self._keys.kept(kind)[0], field_name))
        )
        value = None if found is None else _decode_value(found)
        return None if value is None or value.until_ms <= self._now_ms() else value.data

    async def items(self, kind: str) -> dict[str, bytes]:
        values, _ = await self._read(kind)
        return {key: value.data for key, value in values.items()}

    async def delete(self, kind: str, key: str) -> bool:
        changes = {key: KeptValue(b"", 0)}
        now_ms = self._now_ms()
        reply = await self._broker.run(
            (
                *(b"EVAL", _DELETE, 2, *self._keys.kept(kind)),
                *(self._base(kind), _encode(changes), now_ms, key.encode()),
            ),
            durable=True,
        )
        if not reply:
            return False
        number, found = as_list(reply)
        self._apply_own(kind, as_number(number), changes)
        value = _decode_value(as_bytes(found))
        return value is not None and value.until_ms > now_ms

    def sweep(self) -> None:
        self._copies.sweep(self._now_ms())

    # --- following

    def _on_up(self) -> None:
        # Messages may have been lost.
        for followed in self._followed.values():
            followed.number = None
        self._wakeup.set()

    def _on_message(self, channel: str, message: bytes) -> bool:
        followed = self._followed.get(channel)
        decoded = _decode_message(message)
        if followed is None or decoded is None:
            return False
        if followed.number is None:
            if len(followed.waiting) < _MAX_WAITING:
                followed.waiting.append(decoded)
        else:
            self._receive(followed, *decoded)
        return True

    def _receive(self, followed: _Followed, number: int, changes: Changes) -> None:
        assert followed.number is not None
        if number <= followed.number:
            return
        if number == followed.number + 1:
            followed.number = number
        else:
            followed.number = None
            self._wakeup.set()
        self._apply(followed.kind, changes)

    def _apply_own(self, kind: str, number: int, changes: Changes) -> None:
        """Apply a change of this node now; its message, and those before it, may come later."""
        followed = self._followed.get(kept_channel(kind))
        if followed is not None and (followed.number is None or number > followed.number):
            self._apply(kind, changes)

    def _apply(self, kind: str, changes: Changes) -> None:
        try:
            for key, value in changes.items():
                if value.until_ms:
                    self._copies.put(kind, key, value)
                else:
                    self._copies.delete(kind, key)
        except Exception as failure:
            # A failing callback must not stop later changes.
            self._failure_log.report(failure)

    async def _read_loop(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            try:
                await self._read_unknown()
            except FloorcastError:
                await asyncio.sleep(_RETRY_SECONDS)
                self._wakeup.set()

    async def _read_unknown(self) -> None:
        """Read the kinds of which this node may have missed a change."""
        for channel, followed in self._followed.items():
            if followed.number is not None:
                continue
            await self._broker.watch(channel)
            followed.waiting.clear()
            values, number = await self._read(followed.kind)
            waiting, followed.waiting = followed.waiting, []
            self._copies.replace(followed.kind, values)
            followed.number = number
            for each in waiting:
                if followed.number is not None:
                    self._receive(followed, *each)
            if len(waiting) >= _MAX_WAITING:
                followed.number = None
                self._wakeup.set()

    async def _read(self, kind: str) -> tuple[dict[str, KeptValue], int]:
        """The values of a kind, and the number of the newest change."""
        # One command: the number is that of these values.
        found = as_mapping(await self._broker.run((b"EVAL", _READ, 1, self._keys.kept(kind)[0])))
        number, now_ms = int(found.pop(b"#", 0)), self._now_ms()
        values = ((name[1:].decode(), _decode_value(text)) for name, text in found.items())
        return {
            key: value for key, value in values if value is not None and value.until_ms > now_ms
        }, number

    def _base(self, kind: str) -> bytes:
        return self._keys.base(kept_channel(kind))

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)


def _encode(changes: Changes) -> bytes:
    parts = []
    for key, value in changes.items():
        name = key.encode()
        parts.append(b" %d %d %d " % (value.until_ms, len(name), len(value.data)))
        parts += (name, value.data)
    return b"".join(parts)


def _decode_message(message: bytes) -> tuple[int, dict[str, KeptValue]] | None:
    """The number and the changes; None if the message is malformed."""
    head = re.match(rb"kept1 (\d{1,16})", message)
    if head is None:
        return None
    try:
        return int(head[1]), dict(_decode_changes(message, head.end()))
    except ValueError:
        return None


def _decode_changes(message: bytes, at: int) -> Iterator[tuple[str, KeptValue]]:
    while at < len(message):
        change = _CHANGE.match(message, at)
        if change is None:
            raise ValueError("malformed change")
        until_ms, key_size, size = map(int, change.groups())
        data_at = change.end() + key_size
        at = data_at + size
        if at > len(message):
            raise ValueError("malformed change")
        yield (
            message[change.end() : data_at].decode(),
            KeptValue(message[data_at:at], until_ms),
        )


def _decode_value(text: bytes) -> KeptValue | None:
    until_ms, _, data = text.partition(b" ")
    return KeptValue(data, int(until_ms)) if until_ms.isdigit() else None
