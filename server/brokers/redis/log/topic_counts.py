"""Counts the topics of each publisher and org over all nodes, without a counter to repair."""

import asyncio
from collections import OrderedDict

from server.brokers.redis.connection.client import evaluate
from server.brokers.redis.connection.keys import Keys, head_key, log_key
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.connection.replies import as_bytes_list
from server.brokers.redis.connection.subscribers import Subscribers
from server.brokers.redis.log.scripts import build_script
from server.core.errors import FloorcastError
from server.core.limits.shares import SERVER, UNLIMITED, Level, Owner, ShareLimits, share_error
from server.ports import Clock

# How many of the longest unchecked topics are checked for one new one.
_MAX_CHECKED = 16
# A full set is not searched again for this long.
_FULL_SECONDS = 1.0
_MAX_FULL = 10_000

# KEYS: a sorted set of topics with the time of their last check. ARGV: a topic, the limit, the
# time, how long the set is kept after its last new topic. Adds the topic and returns nothing; at
# the limit returns the longest unchecked ones.
_ADD = build_script(
    """
if not redis.call('ZSCORE', KEYS[1], ARGV[1])
    and redis.call('ZRANGE', KEYS[1], ARGV[2] - 1, ARGV[2] - 1)[1] then
  return redis.call('ZRANGE', KEYS[1], 0, @CHECKED@ - 1)
end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {}
""",
    {"@CHECKED@": _MAX_CHECKED},
)

# KEYS: head, log. ARGV: the pub/sub channel; the owner; the time before which a topic is silent.
# Deletes a silent topic that no node is subscribed to. Returns 1 if the topic does not count to
# this owner, else 0.
_CHECK = build_script(
    """
local last, owner = unpack(redis.call('HMGET', KEYS[1], 'last', 'owner'))
if not last or (owner and owner ~= ARGV[2]) then return 1 end
local ts = tonumber(string.match(last, '"ts":(%d+)'))
if ts > tonumber(ARGV[3]) or redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2] ~= 0 then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
""",
    {},
)

SCRIPTS = (_ADD, _CHECK)


class TopicCounts:
    """One sorted set of topics for all, for each org and for each publisher.

    A topic that has expired or has another owner stays in a set until the set is full.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        subscribers: Subscribers,
        keys: Keys,
        clock: Clock,
        limits: ShareLimits,
        *,
        silent_seconds: float,
        idle_ms: int,
    ) -> None:
        self._pipeline = pipeline
        self._subscribers = subscribers
        self._keys = keys
        self._clock = clock
        self._limits = limits
        self._idle_ms = idle_ms
        self._silent_ms = int(silent_seconds * 1000)
        # Full sets, with the time from which they are searched again.
        self._full: OrderedDict[bytes, float] = OrderedDict()

    async def add(self, channel: str, owner: Owner) -> None:
        """Count a topic for its publisher, its org and all; raises `LimitError` at a limit.

        One after the other: what a publisher may not add must not count to its org or to all.
        """
        limits = self._limits
        sets = [(self._keys.topics(), Level.SERVER, limits.total.count)]
        if owner != SERVER:
            sets += [
                (self._keys.org_topics(owner.org), Level.ORG, limits.org.count),
                (self._keys.publisher_topics(*owner), Level.PUBLISHER, limits.publisher.count),
            ]
        member = "\n".join((*owner, channel)).encode()
        added: list[bytes] = []
        for name, level, limit in reversed(sets):
            if limit >= UNLIMITED:
                continue
            try:
                await self._add_to(name, level, limit, member)
            except FloorcastError:
                for each in added:
                    await self._pipeline.run((b"ZREM", each, member))
                raise
            added.append(name)

    async def _add_to(self, name: bytes, level: Level, limit: int, member: bytes) -> None:
        now, now_ms = self._clock.monotonic(), int(self._clock.time() * 1000)
        command = evaluate(_ADD, [name], member, limit, now_ms, self._idle_ms)
        oldest = as_bytes_list(await self._pipeline.run(command))
        if not oldest:
            return
        if self._full.get(name, now) <= now:
            if await self._make_room(name, oldest, now_ms) and not await self._pipeline.run(
                command
            ):
                return
            self._full[name] = now + _FULL_SECONDS
            if len(self._full) > _MAX_FULL:
                self._full.popitem(last=False)
        raise share_error(level, "topics", limit)

    async def _make_room(self, name: bytes, members: list[bytes], now_ms: int) -> bool:
        """Remove the topics that do not count any more; returns if there were any."""
        gone = await asyncio.gather(*(self._is_gone(each, now_ms) for each in members))
        removed = [each for each, is_gone in zip(members, gone, strict=True) if is_gone]
        kept = [each for each, is_gone in zip(members, gone, strict=True) if not is_gone]
        if kept:
            # The others are checked first the next time.
            scores = [part for each in kept for part in (now_ms, each)]
            await self._pipeline.run((b"ZADD", name, *scores))
        if removed:
            await self._pipeline.run((b"ZREM", name, *removed))
        return bool(removed)

    async def _is_gone(self, member: bytes, now_ms: int) -> bool:
        org, user_id, channel = member.decode().split("\n")
        base = self._keys.base(channel)
        if await self._subscribers.may_exist(base):
            return False
        command = evaluate(
            _CHECK,
            [head_key(base), log_key(base)],
            *(base, encode_owner(Owner(org, user_id)), now_ms - self._silent_ms),
        )
        return bool(await self._pipeline.run(command))


def encode_owner(owner: Owner) -> bytes:
    """An owner as stored with the head of a topic."""
    return "\n".join(owner).encode()
