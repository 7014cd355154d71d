"""The Lua scripts of session presence, each atomic."""

from collections.abc import Iterator
from dataclasses import dataclass

from server.brokers.redis.log.scripts import INCARNATION_FUNCTION, Script, build_script
from server.core.sessions.records import SessionRules

# Redis itself expires sessions whose nodes are all dead, this much later than a node would.
_EXTRA_TTL_MS = 3_600_000
# The newest session events, for connections that are between two nodes meanwhile.
_MAX_EVENTS = 128
_EVENTS_TTL_MS = 600_000
# More revisions than a session can gain before they are replicated.
_REVISION_JUMP = 1_000_000

# KEYS: facts, users, connections, disconnected users, then head and log of the session's channel,
# and its newest events. ARGV: the pub/sub channel, the time in ms; then each script's own.
# A user's value is "connections joined_at number", a connection's is "node user".
_PRELUDE = (
    INCARNATION_FUNCTION
    + """
local room, users, connections, lost = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now = tonumber(ARGV[2])

local function emit(what, user)
  local revision = redis.call('HINCRBY', room, 'revision', 1)
  local event = string.format(
    '{"v":1,"said":"%s","revision":%.0f,"user":%s,"count":%d,"ts":%.0f}', what, revision,
    cjson.encode(user), redis.call('HLEN', users), now)
  redis.call('PUBLISH', ARGV[1], event)
  redis.call('XADD', KEYS[7], 'MAXLEN', @EVENTS@, string.format('%.0f-0', revision), 'm', event)
  redis.call('PEXPIRE', KEYS[7], @EVENTS_MS@)
end

local function open(facts, made)
  redis.call('DEL', KEYS[7])
  -- Time-based: higher than any revision of an earlier session of this name.
  redis.call('HSET', room, 'made', made, 'facts', facts, 'revision',
    string.format('%.0f', now * 1000), 'number', 0, 'home', '@HOME@')
end

-- When the session must be checked for expiry.
local function due()
  local first = redis.call('ZRANGE', lost, 0, 0, 'WITHSCORES')[2]
  if first then return tonumber(first) end
  return tonumber(redis.call('HGET', room, 'until') or '0') or 0
end

local function rest()
  redis.call('HSET', room, 'until', string.format('%.0f', now + @RETENTION_MS@))
  redis.call('PEXPIRE', room, @RETENTION_MS@ + @SPARE_MS@)
end

-- Whether a key of the members is missing, which Redis can evict.
local function incomplete()
  local count = redis.call('HLEN', users)
  if count == 0 then
    local ends, closed = unpack(redis.call('HMGET', room, 'until', 'closed'))
    return not ends and not closed
  end
  return redis.call('HLEN', connections) == 0 and #redis.call('ZRANGE', lost, 0, -1) < count
end

do
  -- After a restart or a promotion the last changes may be missing. The session gets another mark,
  -- which tells its nodes to restore their connections, as they notice by the gap in its revisions.
  local made, lived, revision = unpack(redis.call('HMGET', room, 'made', 'home', 'revision'))
  local restarted = made and lived ~= '@HOME@'
  if restarted and home() ~= '@HOME@' then
    return redis.error_reply('NOSCRIPT of another incarnation')
  end
  local evicted = made and incomplete()
  if restarted or evicted then
    revision = string.format('%.0f', math.max(now * 1000, revision + @MANY@))
    local mark = string.match(made, '^%x+') .. '@@HOME@'
    if evicted then
      redis.call('DEL', users, connections, lost)
      rest()
      mark = mark .. '@' .. revision
    end
    redis.call('HSET', room, 'home', '@HOME@', 'made', mark, 'revision', revision)
  end
end

-- A user's connections, and the rest of the value; nothing for an unknown user or garbage.
local function state_of(user)
  return string.match(redis.call('HGET', users, user) or '', '^(%d+) (%d+ %d+)$')
end

local function add(connection, node, user, silent)
  local known = redis.call('HGET', connections, connection)
  redis.call('HSET', connections, connection, node .. ' ' .. user)
  if known then return end
  local count, since = state_of(user)
  if count then
    redis.call('HSET', users, user, string.format('%d %s', count + 1, since))
    redis.call('ZREM', lost, user)
    return
  end
  if redis.call('HLEN', users) == 0 then
    redis.call('HDEL', room, 'until')
    redis.call('PERSIST', room)
  end
  local number = redis.call('HINCRBY', room, 'number', 1)
  redis.call('HSET', users, user, string.format('1 %.0f %d', now, number))
  if not silent then emit('joined', user) end
end

local function part(user, what)
  redis.call('HDEL', users, user)
  redis.call('ZREM', lost, user)
  emit(what, user)
  if redis.call('HLEN', users) == 0 then rest() end
end

-- Whether a connection belongs to a node; not if it has moved to another one.
local function belongs(connection, node)
  local known = redis.call('HGET', connections, connection)
  return not known or string.match(known, '^(%S+) ') == node
end

local function remove(connection, grace_ms)
  local known = redis.call('HGET', connections, connection)
  if not known then return end
  redis.call('HDEL', connections, connection)
  local user = string.match(known, '^%S+ (.*)$')
  local count, since = state_of(user or '')
  if not count then return end
  redis.call('HSET', users, user, string.format('%d %s', count - 1, since))
  if count - 1 > 0 then return end
  if grace_ms > 0 then
    redis.call('ZADD', lost, string.format('%.0f', now + grace_ms), user)
  else
    part(user, 'left')
  end
end

local function session()
  local state = redis.call('HMGET', room, 'revision', 'closed', 'facts', 'made')
  return {state[1], state[2] or '', state[3], state[4], redis.call('HGETALL', users), due()}
end
"""
)

# ARGV: the connection, its user, its node; the facts, '' to not create a session; its mark.
# Returns 'none', 'closed', 'full', or 'in' or 'made' and the session.
_JOIN = """
local connection, user, node, facts, made = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local state = redis.call('HMGET', room, 'made', 'closed')
if state[2] then return {'closed'} end
if not state[1] then
  if facts == '' then return {'none'} end
  open(facts, made)
end
if @PARTICIPANTS@ > 0 and redis.call('HEXISTS', users, user) == 0
    and redis.call('HLEN', users) >= @PARTICIPANTS@ then
  return {'full'}
end
add(connection, node, user, false)
return {state[1] and 'in' or 'made', unpack(session())}
"""

# ARGV: the connection, the grace period in ms, 0 for a deliberate leave; the node that lost the
# connection, or ''. Returns the due time.
_LEAVE = """
if ARGV[5] == '' or belongs(ARGV[3], ARGV[5]) then remove(ARGV[3], tonumber(ARGV[4])) end
return due()
"""

# ARGV: the user. Returns 'none', 'closed', 'absent', or 'ok', the connections, and the due time.
_KICK = """
local state = redis.call('HMGET', room, 'made', 'closed')
if not state[1] then return {'none'} end
if state[2] then return {'closed'} end
if redis.call('HEXISTS', users, ARGV[3]) == 0 then
  emit('barred', ARGV[3])
  return {'absent'}
end
local found = redis.call('HGETALL', connections)
local count = 0
for i = 1, #found, 2 do
  if string.match(found[i + 1], '^%S+ (.*)$') == ARGV[3] then
    redis.call('HDEL', connections, found[i])
    count = count + 1
  end
end
part(ARGV[3], 'kicked')
return {'ok', count, due()}
"""

# Returns 'none', 'closed', or 'ok', the number of connections, and the due time.
_CLOSE = """
local state = redis.call('HMGET', room, 'made', 'closed')
if not state[1] then return {'none'} end
if state[2] then return {'closed'} end
local count = redis.call('HLEN', connections)
redis.call('HSET', room, 'closed', 1)
redis.call('DEL', users, connections, lost)
emit('closed', '')
rest()
return {'ok', count, due()}
"""

# Returns the session, or nothing.
_PARTICIPANTS = """
if redis.call('EXISTS', room) == 0 then return {} end
return session()
"""

# ARGV: the grace period of connections of dead nodes; the dead nodes. Removes users whose grace
# period is over. Returns 'gone', 'over' and the facts, or 'ok' and the due time.
_EXPIRE = """
if #ARGV > 3 then
  local dead = {}
  for i = 4, #ARGV do dead[ARGV[i]] = true end
  local found = redis.call('HGETALL', connections)
  for i = 1, #found, 2 do
    if dead[string.match(found[i + 1], '^(%S+) ')] then remove(found[i], tonumber(ARGV[3])) end
  end
end
for _, user in ipairs(redis.call('ZRANGEBYSCORE', lost, '-inf', ARGV[2])) do
  part(user, 'left')
end
local state = redis.call('HMGET', room, 'until', 'facts')
if not state[2] then return {'gone'} end
if state[1] and tonumber(state[1]) <= now then
  redis.call('DEL', room, KEYS[7])
  if redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2] == 0 then
    redis.call('DEL', KEYS[5], KEYS[6])
  end
  return {'over', state[2]}
end
return {'ok', due()}
"""

# ARGV: the facts, the mark known to the node, a mark for a new session, '1' if the node was
# declared dead, the node; each connection and its user. Restores a node's connections. Returns
# 'in' or 'made', the connections that are not in any more, and the session; or 'closed'.
_ASSERT = """
local facts, known, made, swept, node = ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1', ARGV[7]
local state = redis.call('HMGET', room, 'made', 'closed')
if state[2] then return {'closed', redis.call('HGET', room, 'revision')} end
-- Redis lost the session: participants did not change, so no events.
local silent = not swept and state[1] ~= known
if not state[1] then open(facts, made) end
local gone, there = {}, {}
for i = 8, #ARGV, 2 do
  there[ARGV[i]] = true
  if not swept and not belongs(ARGV[i], node) then
    -- Another node has resumed it.
  elseif silent or swept or redis.call('HEXISTS', connections, ARGV[i]) == 1 then
    add(ARGV[i], node, ARGV[i + 1], silent)
  else
    table.insert(gone, ARGV[i])
  end
end
if silent then
  -- Redis may also have lost a leave.
  local found = redis.call('HGETALL', connections)
  for i = 1, #found, 2 do
    if string.match(found[i + 1], '^(%S+) ') == node and not there[found[i]] then
      remove(found[i], 0)
    end
  end
end
return {state[1] and 'in' or 'made', gone, unpack(session())}
"""

# ARGV: the first revision. Returns the newest revision and the events from the first one on, or
# nothing if there is no session.
_EVENTS = """
local newest = redis.call('HGET', room, 'revision')
if not newest then return {} end
return {newest, redis.call('XRANGE', KEYS[7], ARGV[3], '+')}
"""

# KEYS: a set. ARGV: a member, the limit or 0. Returns 1 if it is in the set now.
_CLAIM = """
local many = tonumber(ARGV[2])
if many > 0 and redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0
    and redis.call('SCARD', KEYS[1]) >= many then
  return 0
end
redis.call('SADD', KEYS[1], ARGV[1])
return 1
"""


@dataclass(frozen=True, slots=True)
class PresenceScripts:
    """The scripts with the rules inlined."""

    join: Script
    leave: Script
    kick: Script
    close: Script
    participants: Script
    expire: Script
    assert_members: Script
    events: Script
    claim: Script

    @staticmethod
    def build(rules: SessionRules) -> "PresenceScripts":
        """Create the scripts for these rules."""
        words: dict[str, object] = {
            "@RETENTION_MS@": int(rules.retention_seconds * 1000),
            "@SPARE_MS@": _EXTRA_TTL_MS,
            "@MANY@": _REVISION_JUMP,
            "@EVENTS@": _MAX_EVENTS,
            "@EVENTS_MS@": _EVENTS_TTL_MS,
            "@PARTICIPANTS@": rules.max_participants,
        }
        of_sessions = (_JOIN, _LEAVE, _KICK, _CLOSE, _PARTICIPANTS, _EXPIRE, _ASSERT, _EVENTS)
        texts = (*(_PRELUDE + each for each in of_sessions), _CLAIM)
        return PresenceScripts(*(build_script(each, words) for each in texts))

    def __iter__(self) -> Iterator[Script]:
        yield from (self.join, self.leave, self.kick, self.close, self.participants, self.expire)
        yield from (self.assert_members, self.events, self.claim)
