"""What Redis does in one step each: publish, read, forget."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1

from server.brokers.redis.codec import HEAD

# Clocks of nodes differ, and what is still read must not vanish meanwhile.
_GRACE_MS = 60_000

# KEYS: head, log, and the claim where there is one. ARGV: an epoch in case there is none yet, the
# entry's tail, where to tell it, last|kept|book, its time, the head that is expected or nothing,
# the tail of the whole book or nothing, the digest of the claim.
# Answers {0, epoch, seq, updates since the whole}, {1, the claim}, or {2, epoch, seq} where the
# head is another one.
_PUBLISH = """
local head, log = KEYS[1], KEYS[2]
local mode, ts, whole = ARGV[4], tonumber(ARGV[5]), ARGV[7]
local state = redis.call('HMGET', head, 'epoch', 'seq', 'first', 'first_ts', 'bytes', 'whole_seq')
local epoch, seq = state[1], tonumber(state[2])
if KEYS[3] then
  local known = redis.call('GET', KEYS[3])
  -- A claim on a place that was lost says nothing.
  if known and epoch and string.find(known, ' ' .. epoch .. ' ', 1, true) then
    return {1, known}
  end
end
local begins = not epoch
if begins then epoch, seq = ARGV[1], 0 end
if ARGV[6] ~= '' and ARGV[6] ~= epoch .. ' ' .. string.format('%.0f', seq) then
  return {2, epoch, seq}
end
seq = seq + 1
local before = string.format('@HEAD@', epoch, seq)
local message = before .. ARGV[2]
-- The first write, so that a Redis that is full refuses before anything has changed.
redis.call('HSET', head, 'epoch', epoch, 'seq', seq, 'last', message)
if begins then redis.call('DEL', log) end
local id = string.format('%.0f-0', seq)
local behind = 0
if mode == 'book' and whole ~= '' then
  redis.call('HSET', head, 'whole', before .. whole, 'whole_seq', seq)
  redis.call('HDEL', head, 'first', 'first_ts', 'bytes')
  redis.call('DEL', log)
elseif mode ~= 'last' then
  redis.call('XADD', log, id, 'm', message)
  local first, first_ts = tonumber(state[3]), tonumber(state[4])
  local bytes = (tonumber(state[5]) or 0) + #message
  if begins or not first or redis.call('XLEN', log) ~= seq - first + 1 then
    -- The log was lost, or is new.
    redis.call('XTRIM', log, 'MINID', id)
    first, first_ts, bytes = seq, ts, #message
  end
  if mode == 'kept' then
    while first < seq and (seq - first >= @MESSAGES@ or bytes > @BYTES@
        or first_ts + @AGE_MS@ <= ts) do
      local two = redis.call('XRANGE', log, '-', '+', 'COUNT', 2)
      redis.call('XTRIM', log, 'MINID', two[2][1])
      bytes = bytes - #two[1][2][2]
      first = first + 1
      first_ts = tonumber(string.match(two[2][2][2], '"ts":(%d+)'))
    end
    redis.call('PEXPIRE', log, @LOG_MS@)
  else
    behind = seq - (tonumber(state[6]) or 0)
    redis.call('PEXPIRE', log, @IDLE_MS@)
  end
  redis.call('HSET', head, 'first', first, 'first_ts', first_ts, 'bytes', bytes)
end
redis.call('PEXPIRE', head, @IDLE_MS@)
if KEYS[3] then
  local claim = table.concat({ARGV[8], epoch, string.format('%.0f', seq), ARGV[5]}, ' ')
  redis.call('SET', KEYS[3], claim, 'PX', @CLAIM_MS@)
end
redis.call('PUBLISH', ARGV[3], message)
return {0, epoch, seq, behind}
"""

# KEYS: head, log. ARGV: an epoch in case there is none yet, the epoch and seq that are known or
# nothing, the time that kept entries must be newer than, and whether the state is wanted.
# Answers {epoch, seq, newest entry, whole book, updates of it, told, entries}; told is 1 where the
# entries are all that came after, 2 where they are all that came in a new epoch, 0 otherwise.
_READ = """
local head, log = KEYS[1], KEYS[2]
local known_epoch, known_seq, oldest = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local state = redis.call('HMGET', head, 'epoch', 'seq', 'last', 'whole', 'whole_seq', 'first')
local epoch, seq, whole_seq = state[1], tonumber(state[2]), tonumber(state[5])

local function after(from)
  local found = {}
  for i, each in ipairs(redis.call('XRANGE', log, string.format('(%.0f-0', from), '+')) do
    found[i] = each[2][2]
  end
  return #found == seq - from and found or nil
end

local updates = {}
if epoch and whole_seq and whole_seq < seq then
  updates = after(whole_seq)
end
if not epoch or not updates then
  -- Nothing was here, or what is here makes no whole any more.
  epoch, seq, updates, state = ARGV[1], 0, {}, {}
  whole_seq = nil
  redis.call('HSET', head, 'epoch', epoch, 'seq', 0)
  redis.call('HDEL', head, 'last', 'whole', 'whole_seq', 'first', 'first_ts', 'bytes')
  redis.call('DEL', log)
  redis.call('PEXPIRE', head, @IDLE_MS@)
end

local told, entries = 0, {}
if known_epoch ~= '' then
  local from = known_epoch == epoch and known_seq or 0
  if from == seq then
    told = 1
  elseif from < seq and state[6] then
    local found = after(from)
    if not found and from == seq - 1 then found = {state[3]} end
    if found and #found > 1 and not whole_seq
        and tonumber(string.match(found[1], '"ts":(%d+)')) <= oldest then
      found = nil
    end
    if found then told, entries = 1, found end
  end
  if told == 1 and known_epoch ~= epoch then told = 2 end
end
if ARGV[5] == '' then return {epoch, seq, '', '', {}, told, entries} end
return {epoch, seq, state[3] or '', state[4] or '', updates, told, entries}
"""

# KEYS: log. ARGV: before which id, and how many. Answers the newest first.
_BEFORE = """
local found = {}
for i, each in ipairs(redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', ARGV[2])) do
  found[i] = each[2][2]
end
return found
"""

# KEYS: head, log. ARGV: where the channel is told; one that some node watches is not forgotten.
_FORGET = """
if redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2] == 0 then
  redis.call('DEL', KEYS[1], KEYS[2])
end
return {}
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A program and the name that Redis gives it."""

    text: bytes
    sha: bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the programs hold every channel to."""

    messages: int
    bytes: int
    age_ms: int
    claim_ms: int
    idle_ms: int


@dataclass(frozen=True, slots=True)
class Scripts:
    """The programs, with the bounds written into them: they need not be sent each time."""

    publish: Script
    read: Script
    before: Script
    forget: Script

    @staticmethod
    def within(bounds: Bounds) -> "Scripts":
        """Make them."""
        words = {
            "@HEAD@": HEAD,
            "@MESSAGES@": bounds.messages,
            "@BYTES@": bounds.bytes,
            "@AGE_MS@": bounds.age_ms,
            "@LOG_MS@": bounds.age_ms + _GRACE_MS,
            "@CLAIM_MS@": bounds.claim_ms,
            "@IDLE_MS@": bounds.idle_ms,
        }
        return Scripts(*(script(each, words) for each in (_PUBLISH, _READ, _BEFORE, _FORGET)))

    def __iter__(self) -> Iterator[Script]:
        yield from (self.publish, self.read, self.before, self.forget)


def script(text: str, words: dict[str, object]) -> Script:
    for word, value in words.items():
        text = text.replace(word, str(value))
    encoded = text.strip().encode()
    # Redis names programs so; nothing is secret here.
    return Script(encoded, sha1(encoded, usedforsecurity=False).hexdigest().encode())
