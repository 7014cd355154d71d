"""The scripts of occupancy, wills and the queue of hooks, each atomic.

All keys have one hash tag, so that one script sees all of it: KEYS[1] is the part that they share.
Times are those of Redis: the clocks of nodes differ.
"""

from dataclasses import dataclass

from client_sdk.contract import HookType
from server.brokers.redis.log.scripts import Script, build_script
from server.core.limits.shares import ShareLimits
from server.core.occupancy.config import OccupancyConfig
from server.core.occupancy.subjects import SubjectKind, change_type
from server.core.occupancy.wills import RETRY_SECONDS, WILL_BYTES

# How often each node shows that it lives, and after how much silence it is gone.
BEAT_SECONDS = 0.25
_GONE_SECONDS = 1.2
# If no node has shown itself for so long, Redis was away: all get the full time again.
_INTERRUPTION_SECONDS = 1.0
# A node sends the events of all; another one takes over after this.
SENDER_SECONDS = 10.0
# How long an event that many nodes notice is remembered.
_ONCE_MS = 3_600_000
# How long what a node's feeds publish to is kept; each beat renews it.
_ANNOUNCED_MS = 86_400_000
# What one call handles, so that Redis serves others in between.
_MAX_GONE, _MAX_VACATED, _MAX_DUE = 500, 100, 20

# `counts`: by how many nodes each subject is used. `on`: the occupied subjects. `due`: when those
# that nobody uses are vacated. `wills`: 'after_ms id messages' by user; `wills:due`: when they are
# published; `wills:shares`: number and bytes by org; `wills:at:LEASE`: since when a node has the
# users with a will that came to it by a new connection. `seen:ORG`: when users were last connected.
# `feeds`: the leases with live feeds; `feeds:LEASE`: what these publish to.
_COMMON = """
local base = KEYS[1]
local counts, on, due, wills = base .. ':counts', base .. ':on', base .. ':due', base .. ':wills'
local wills_due, shares, events = wills .. ':due', wills .. ':shares', base .. ':events'
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function number(value) return string.format('%.0f', value) end
local function org_of(subject)
  local size, rest = string.match(subject, '^.(%d+):%d+:(.*)$')
  return string.sub(rest, 1, tonumber(size))
end
local function add_share(org, count, bytes)
  redis.call('HINCRBY', shares, 'n' .. org, count)
  redis.call('HINCRBY', shares, 'b' .. org, bytes)
  redis.call('HINCRBY', shares, 'n', count)
  redis.call('HINCRBY', shares, 'b', bytes)
  if redis.call('HGET', shares, 'n' .. org) == '0' then
    redis.call('HDEL', shares, 'n' .. org, 'b' .. org)
  end
end
local function forget_will(user)
  local will = redis.call('HGET', wills, user)
  if not will then return end
  redis.call('HDEL', wills, user)
  redis.call('ZREM', wills_due, user)
  add_share(org_of(user), -1, -(#will + @WILL_BYTES@))
end
local function record_seen(user, at)
  local seen = base .. ':seen:' .. org_of(user)
  redis.call('ZADD', seen, 'GT', number(at), user)
  redis.call('ZREMRANGEBYSCORE', seen, '-inf', number(at - @SEEN_MS@))
  local surplus = redis.call('ZRANGE', seen, 0, -(@SEEN_PER_ORG@ + 1))
  if #surplus > 0 then redis.call('ZREM', seen, unpack(surplus)) end
  redis.call('PEXPIRE', seen, '@SEEN_MS@')
end
local function leave(subject, at, grace)
  if @SEEN_MS@ > 0 and string.sub(subject, 1, 1) == 'u' then record_seen(subject, at) end
  if redis.call('HINCRBY', counts, subject, -1) > 0 then return end
  redis.call('HDEL', counts, subject)
  if redis.call('SISMEMBER', on, subject) == 1 then
    redis.call('ZADD', due, number(at + grace), subject)
  end
  local will = redis.call('HGET', wills, subject)
  if will then
    redis.call('ZADD', wills_due, number(at + string.match(will, '^%d+')), subject)
  end
end
local function arrivals(lease) return wills .. ':at:' .. lease end
local feeds = base .. ':feeds'
local function announced(lease) return feeds .. ':' .. lease end
local function forget_feeds(lease)
  redis.call('SREM', feeds, lease)
  redis.call('DEL', announced(lease))
end
local function append_change(kinds, subject, state, now, node)
  if string.find(kinds, string.sub(subject, 1, 1), 1, true) then
    redis.call('XADD', events, '*', 's', subject, 'o', state, 't', number(now), 'n', node)
  end
end
local function drop_surplus()
  local surplus = redis.call('XLEN', events) - @MAX_EVENTS@
  if surplus <= 0 then return 0 end
  return redis.call('XTRIM', events, 'MAXLEN', '@MAX_EVENTS@')
end
"""

# ARGV: this node's lease, its name; then updates in order, each of three: 'e' a subject, and n(ew),
# r(esumed) or k(nown to be occupied); 'l' a subject, how many ms ago; 'a' an event, its key or ''.
# Returns whether the lease is known; if so, also the number of dropped events, and the subjects
# that are occupied now.
_APPLY = (
    _COMMON
    + """
if redis.call('HEXISTS', base .. ':beats', ARGV[1]) == 0 then return {0} end
local mine, now, occupied = base .. ':node:' .. ARGV[1], now_ms(), {}
for i = 3, #ARGV, 3 do
  local kind, what, how = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if kind == 'a' then
    if how == '' or redis.call('ZADD', base .. ':once', 'NX', number(now), how) == 1 then
      redis.call('XADD', events, '*', 'b', what)
    end
  elseif kind == 'e' then
    if redis.call('SADD', mine, what) == 1 then redis.call('HINCRBY', counts, what, 1) end
    redis.call('ZREM', due, what)
    if redis.call('ZREM', wills_due, what) == 1 and how == 'n' then
      forget_will(what)
    elseif how == 'n' and redis.call('HEXISTS', wills, what) == 1 then
      redis.call('HSET', arrivals(ARGV[1]), what, number(now))
    end
    if redis.call('SADD', on, what) == 1 and how ~= 'k' then
      table.insert(occupied, what)
      append_change('@OCCUPIED@', what, '1', now, ARGV[2])
    end
  elseif redis.call('SREM', mine, what) == 1 then
    redis.call('HDEL', arrivals(ARGV[1]), what)
    leave(what, now - how, @GRACE_MS@)
  end
end
return {1, drop_surplus(), occupied}
"""
)

# ARGV: this node's lease, its name. Shows that it lives, and finds what is due.
# Returns 'known', 'new', or 'gone' if others have taken this node for dead; whether there is more
# to do now; the number of dropped events; the vacated subjects; the users whose wills are due and
# the wills; the number of waiting events; what the feeds of a dead node published to and, if there
# is one, what those of each living node do.
_BEAT = (
    _COMMON
    + """
local beats, gone, now = base .. ':beats', base .. ':gone', now_ms()
if redis.call('HEXISTS', gone, ARGV[1]) == 1 then return {'gone', 1, 0, {}, {}, 0, {}} end
local status = redis.call('HEXISTS', beats, ARGV[1]) == 1 and 'known' or 'new'
local last = tonumber(redis.call('HGET', beats, ':last') or '0')
if now - last > @INTERRUPTION_MS@ then redis.call('HSET', beats, ':resumed', number(now)) end
redis.call('HSET', beats, ARGV[1], number(now), ':last', number(now))
redis.call('PEXPIRE', announced(ARGV[1]), '@ANNOUNCED_MS@')
local resumed = tonumber(redis.call('HGET', beats, ':resumed'))
local found, living = redis.call('HGETALL', beats), {}
for i = 1, #found, 2 do
  local name, beat = found[i], tonumber(found[i + 1])
  if string.sub(name, 1, 1) ~= ':' then
    if now - math.max(beat, resumed) > @GONE_MS@ then
      redis.call('HDEL', beats, name)
      redis.call('HSET', gone, name, number(math.min(now, beat + @BEAT_MS@)))
    else
      table.insert(living, name)
    end
  end
end
-- Whether a user was without a connection since then, and is back by new ones only.
local function is_back(user, since)
  if redis.call('HEXISTS', wills, user) == 0 or redis.call('HEXISTS', counts, user) == 0 then
    return false
  end
  for _, name in ipairs(living) do
    if redis.call('SISMEMBER', base .. ':node:' .. name, user) == 1 then
      local arrived = redis.call('HGET', arrivals(name), user)
      if not arrived or tonumber(arrived) < since then return false end
    end
  end
  return true
end
local more, free = 0, @MAX_GONE@
found = redis.call('HGETALL', gone)
for i = 1, #found, 2 do
  local used = base .. ':node:' .. found[i]
  local subjects = free > 0 and redis.call('SPOP', used, free) or {}
  for _, subject in ipairs(subjects) do
    leave(subject, found[i + 1], @DEAD_GRACE_MS@)
    if is_back(subject, tonumber(found[i + 1])) then forget_will(subject) end
  end
  free = free - #subjects
  if redis.call('SCARD', used) == 0 then
    redis.call('HDEL', gone, found[i])
    redis.call('DEL', arrivals(found[i]))
  else
    more = 1
  end
end
local vacated = redis.call('ZRANGEBYSCORE', due, '-inf', number(now), 'LIMIT', 0, @MAX_VACATED@)
if #vacated == @MAX_VACATED@ then more = 1 end
for _, subject in ipairs(vacated) do
  redis.call('ZREM', due, subject)
  redis.call('SREM', on, subject)
  append_change('@VACATED@', subject, '0', now, ARGV[2])
end
local ready = {}
for _, user in ipairs(
  redis.call('ZRANGEBYSCORE', wills_due, '-inf', number(now), 'LIMIT', 0, @MAX_DUE@)) do
  redis.call('ZADD', wills_due, number(now + @RETRY_MS@), user)
  table.insert(ready, user)
  table.insert(ready, redis.call('HGET', wills, user) or '')
end
if #ready == 2 * @MAX_DUE@ then more = 1 end
redis.call('ZREMRANGEBYSCORE', base .. ':once', '-inf', number(now - @ONCE_MS@))
-- A dead node has no beat. A node of another release may have removed it.
local lost, publishing = {}, {}
for _, lease in ipairs(redis.call('SMEMBERS', feeds)) do
  if redis.call('HEXISTS', beats, lease) == 1 then
    table.insert(publishing, lease)
  elseif #lost > 0 then
    more = 1
  else
    lost = {redis.call('GET', announced(lease)) or nil}
    forget_feeds(lease)
  end
end
if #lost > 0 then
  for _, lease in ipairs(publishing) do
    table.insert(lost, redis.call('GET', announced(lease)) or nil)
  end
end
return {status, more, drop_surplus(), vacated, ready, redis.call('XLEN', events), lost}
"""
)

# ARGV: this node's lease. It has left all subjects.
_RETIRE = (
    _COMMON
    + """
redis.call('HDEL', base .. ':beats', ARGV[1])
redis.call('HSET', base .. ':gone', ARGV[1], number(now_ms()))
forget_feeds(ARGV[1])
-- Another node sends the events from now on.
if redis.call('GET', base .. ':sender') == ARGV[1] then redis.call('DEL', base .. ':sender') end
return 1
"""
)

# ARGV: this node's lease, what its feeds publish to, or ''. Returns whether the lease is known.
_ANNOUNCE = (
    _COMMON
    + """
if redis.call('HEXISTS', base .. ':beats', ARGV[1]) == 0 then return 0 end
if ARGV[2] == '' then
  forget_feeds(ARGV[1])
else
  redis.call('SADD', feeds, ARGV[1])
  redis.call('SET', announced(ARGV[1]), ARGV[2], 'PX', '@ANNOUNCED_MS@')
end
return 1
"""
)

# ARGV: a user, its will. Returns 0, or which limit it exceeds: 1 and 2 are the org's number and
# bytes, 3 and 4 the total's.
_PUT_WILL = (
    _COMMON
    + """
local user, will = ARGV[1], ARGV[2]
local org, known = org_of(user), redis.call('HGET', wills, user)
local count, bytes = 1, #will + @WILL_BYTES@
if known then count, bytes = 0, #will - #known end
local held = redis.call('HMGET', shares, 'n' .. org, 'b' .. org, 'n', 'b')
local limits = {@ORG_COUNT@, @ORG_BYTES@, @TOTAL_COUNT@, @TOTAL_BYTES@}
for i = 1, 4 do
  local added = i % 2 == 1 and count or bytes
  if added > 0 and (tonumber(held[i]) or 0) + added > limits[i] then return i end
end
redis.call('HSET', wills, user, will)
add_share(org, count, bytes)
redis.call('ZREM', wills_due, user)
if redis.call('HEXISTS', counts, user) == 0 then
  -- The last connection ended while this was on its way.
  redis.call('ZADD', wills_due, number(now_ms() + string.match(will, '^%d+')), user)
end
return 0
"""
)

# ARGV: a user, and '' or the id of the will to forget.
_FORGET_WILL = (
    _COMMON
    + """
local will = redis.call('HGET', wills, ARGV[1])
if will and (ARGV[2] == '' or string.match(will, '^%d+ (%S+)') == ARGV[2]) then
  forget_will(ARGV[1])
end
return 1
"""
)

# ARGV: a user. Returns when it was last connected; nothing if it is connected or that is unknown.
_LAST_SEEN = (
    _COMMON
    + """
if redis.call('HEXISTS', counts, ARGV[1]) == 1 then return '' end
local at = redis.call('ZSCORE', base .. ':seen:' .. org_of(ARGV[1]), ARGV[1])
if not at or tonumber(at) + @SEEN_MS@ <= now_ms() then return '' end
return number(tonumber(at))
"""
)

# ARGV: this node's lease, how many events. Returns the number of dropped events, and the oldest
# events if this node sends them.
_TAKE = (
    _COMMON
    + """
local sender = base .. ':sender'
local other = redis.call('GET', sender)
if other and other ~= ARGV[1] then return {0, {}} end
local dropped = redis.call('XTRIM', events, 'MINID', number(now_ms() - @KEEP_MS@))
local found = redis.call('XRANGE', events, '-', '+', 'COUNT', ARGV[2])
if #found > 0 then
  redis.call('SET', sender, ARGV[1], 'PX', '@SENDER_MS@')
elseif other then
  redis.call('DEL', sender)
end
return {dropped, found}
"""
)

# ARGV: this node's lease, the id after the last event that arrived. Returns how many are left.
_CONFIRM = (
    _COMMON
    + """
if redis.call('GET', base .. ':sender') == ARGV[1] then
  redis.call('XTRIM', events, 'MINID', ARGV[2])
end
return redis.call('XLEN', events)
"""
)


@dataclass(frozen=True, slots=True)
class OccupancyScripts:
    """The scripts with the config inlined, so that calls need not send it."""

    apply: Script
    beat: Script
    retire: Script
    announce: Script
    put_will: Script
    forget_will: Script
    last_seen: Script
    take: Script
    confirm: Script

    @staticmethod
    def build(config: OccupancyConfig, *, lease_seconds: float) -> "OccupancyScripts":
        """Create the scripts; `lease_seconds` is the least grace time after a node has died."""
        grace_ms = _ms(config.grace_seconds)
        words: dict[str, object] = {
            "@GRACE_MS@": grace_ms,
            "@DEAD_GRACE_MS@": max(grace_ms, _ms(lease_seconds)),
            "@GONE_MS@": _ms(_GONE_SECONDS),
            "@BEAT_MS@": _ms(BEAT_SECONDS),
            "@INTERRUPTION_MS@": _ms(_INTERRUPTION_SECONDS),
            "@SENDER_MS@": _ms(SENDER_SECONDS),
            "@RETRY_MS@": _ms(RETRY_SECONDS),
            "@KEEP_MS@": _ms(config.keep_seconds),
            "@ONCE_MS@": _ONCE_MS,
            "@WILL_BYTES@": WILL_BYTES,
            "@MAX_EVENTS@": config.max_events,
            "@SEEN_MS@": _ms(config.seen_seconds),
            "@SEEN_PER_ORG@": config.seen_per_org,
            "@ANNOUNCED_MS@": _ANNOUNCED_MS,
            "@MAX_GONE@": _MAX_GONE,
            "@MAX_VACATED@": _MAX_VACATED,
            "@MAX_DUE@": _MAX_DUE,
            "@OCCUPIED@": _kinds(config.queued, occupied=True),
            "@VACATED@": _kinds(config.queued, occupied=False),
            **_share_words(config.wills),
        }
        scripts = (_APPLY, _BEAT, _RETIRE, _ANNOUNCE, _PUT_WILL, _FORGET_WILL, _LAST_SEEN)
        queue = (_TAKE, _CONFIRM)
        return OccupancyScripts(*(build_script(each, words) for each in (*scripts, *queue)))

    def all(self) -> tuple[Script, ...]:
        """All scripts."""
        return tuple(getattr(self, name) for name in self.__slots__)


def _kinds(queued: frozenset[HookType], *, occupied: bool) -> str:
    """The first letters of the subjects whose changes are queued."""
    return "".join(each for each in SubjectKind if change_type(each, occupied=occupied) in queued)


def _share_words(limits: ShareLimits) -> dict[str, object]:
    return {
        "@ORG_COUNT@": limits.org.count,
        "@ORG_BYTES@": limits.org.size_bytes,
        "@TOTAL_COUNT@": limits.total.count,
        "@TOTAL_BYTES@": limits.total.size_bytes,
    }


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
