"""The Lua scripts for publishing to, reading and forgetting a channel, each atomic."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1

from server.brokers.redis.log.codec import HEAD_FORMAT
from server.core.sessions.records import is_session_channel

# Clocks of nodes differ: keys must outlive what any node still considers fresh.
CLOCK_SKEW_MS = 60_000
# The number of past epochs whose end is remembered.
_MAX_PAST_EPOCHS = 4
# Entries that one publish removes.
_MAX_TRIMMED = 256

# Identifies one incarnation of a server: after a restart or a promotion it may lack the last
# acknowledged writes, and its data does not show that.
INCARNATION_FUNCTION = """
local function home()
  local info = redis.call('INFO', 'server')
  local process = string.match(info, 'run_id:(%x+)')
  info = redis.call('INFO', 'replication')
  return process .. string.match(info, 'second_repl_offset:(%-?%d+)')
end
"""

# The scripts contain the incarnation they were loaded in. A channel last written in another one
# starts a new epoch at the end of its log: later positions may already have been assigned to lost
# messages. Older entries stay valid, and `past` records where each epoch ended.
_FORK = (
    INCARNATION_FUNCTION
    + """
local function forked(epoch, seq, past)
  if home() ~= '@HOME@' then return nil, redis.error_reply('NOSCRIPT of another incarnation') end
  past = (past or '') .. string.format(' %s %.0f', epoch, seq)
  local _, many = string.gsub(past, ' ', '')
  if many > 2 * @PAST@ then past = string.match(past, '^ %S+ %S+(.*)$') end
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'home', '@HOME@', 'fork', seq, 'past', past)
  return past
end

local function ended(epoch, past)
  for each, seq in string.gmatch(past or '', ' (%S+) (%d+)') do
    if each == epoch then return tonumber(seq) end
  end
end
"""
)

# KEYS: head, log, and optionally the claim. ARGV: a new epoch, used if needed; the entry's tail;
# the pub/sub channel; last|kept|book; the time; the expected head or ''; the tail of the full book
# or ''; the digest of the claim; the owner.
# Returns {0, epoch, seq, updates since the full state, bytes of the kept history}, {1, the earlier
# claim}, or {2, epoch, seq} if the head is not the expected one.
_PUBLISH = (
    _FORK
    + """
local head, log = KEYS[1], KEYS[2]
local mode, ts, whole = ARGV[4], tonumber(ARGV[5]), ARGV[7]
local state = redis.call('HMGET', head, 'epoch', 'seq', 'first', 'first_ts', 'bytes', 'whole_seq',
  'home', 'past')
local epoch, seq, past = state[1], tonumber(state[2]), state[8]
if KEYS[3] then
  local known = redis.call('GET', KEYS[3])
  local claimed = known and string.match(known, '^%S+ (%S+) ')
  -- A claim on a lost position does not count.
  if claimed and epoch and (claimed == epoch or ended(claimed, past)) then
    return {1, known}
  end
end
local begins = not epoch
if epoch and state[7] ~= '@HOME@' then
  local _, stale = forked(epoch, seq, past)
  if stale then return stale end
  epoch = ARGV[1]
end
if begins then epoch, seq = ARGV[1], 0 end
if ARGV[6] ~= '' and ARGV[6] ~= epoch .. ' ' .. string.format('%.0f', seq) then
  return {2, epoch, seq}
end
seq = seq + 1
local before = string.format('@HEAD@', epoch, seq)
local message = before .. ARGV[2]
-- The first write: a Redis out of memory rejects it before anything has changed.
redis.call('HSET', head, 'epoch', epoch, 'seq', seq, 'last', message, 'owner', ARGV[9])
if begins then
  redis.call('HSET', head, 'home', '@HOME@')
  redis.call('DEL', log)
end
local id = string.format('%.0f-0', seq)
local behind, history = 0, 0
if mode == 'book' and whole ~= '' then
  redis.call('HSET', head, 'whole', before .. whole, 'whole_seq', seq)
  redis.call('HDEL', head, 'first', 'first_ts', 'bytes')
  redis.call('DEL', log)
elseif mode ~= 'last' then
  redis.call('XADD', log, id, 'm', message)
  local first, first_ts = tonumber(state[3]), tonumber(state[4])
  local bytes = (tonumber(state[5]) or 0) + #message
  if begins or not first or redis.call('XLEN', log) ~= seq - first + 1 then
    -- The log is new, or was evicted.
    redis.call('XTRIM', log, 'MINID', id)
    first, first_ts, bytes = seq, ts, #message
  end
  if mode == 'kept' then
    -- A log that was silent for long is trimmed in steps, which block nobody: readers skip what is
    -- too old.
    local rest = @TRIM@
    while rest > 0 and first < seq and (seq - first >= @MESSAGES@ or bytes > @BYTES@
        or first_ts + @AGE_MS@ <= ts) do
      rest = rest - 1
      local two = redis.call('XRANGE', log, '-', '+', 'COUNT', 2)
      redis.call('XTRIM', log, 'MINID', two[2][1])
      bytes = bytes - #two[1][2][2]
      first = first + 1
      first_ts = tonumber(string.match(two[2][2][2], '"ts":(%d+)'))
    end
    redis.call('PEXPIRE', log, @LOG_MS@)
    history = bytes
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
return {0, epoch, seq, behind, history}
"""
)

# KEYS: head, log. ARGV: a new epoch, used if needed; the known epoch and seq or ''; the time that
# history entries must be newer than; '1' to include the state.
# Returns {epoch, seq, newest entry, full book, its updates, complete, entries}; complete is 1 if
# entries are all since the known position, else 0, also if they are too many. If the known epoch
# has ended, entries start after the known position or after the epoch's end, whichever is earlier.
_READ = (
    _FORK
    + """
local head, log = KEYS[1], KEYS[2]
local known_epoch, known_seq, oldest = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local state = redis.call('HMGET', head, 'epoch', 'seq', 'last', 'whole', 'whole_seq', 'first',
  'home', 'fork', 'past')
local epoch, seq, whole_seq = state[1], tonumber(state[2]), tonumber(state[5])
local fork, past = tonumber(state[8]) or 0, state[9]
if epoch and state[7] ~= '@HOME@' then
  local stale
  past, stale = forked(epoch, seq, past)
  if stale then return stale end
  epoch, fork = ARGV[1], seq
end

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
  -- The channel is new, or updates of its book are missing.
  epoch, seq, updates, state = ARGV[1], 0, {}, {}
  whole_seq, fork, past = nil, 0, nil
  redis.call('HSET', head, 'epoch', epoch, 'seq', 0, 'home', '@HOME@')
  redis.call('HDEL', head, 'last', 'whole', 'whole_seq', 'first', 'first_ts', 'bytes', 'fork',
    'past')
  redis.call('DEL', log)
  redis.call('PEXPIRE', head, @IDLE_MS@)
end

-- The seq after which entries are returned; nil if entries are missing.
local function start()
  if known_epoch == epoch then return math.max(known_seq, fork) end
  local last = ended(known_epoch, past)
  -- The log of a book does not contain its state at the end of an epoch.
  if last then return not whole_seq and math.min(known_seq, last) end
  return not past and 0
end

local complete, entries = 0, {}
local from = known_epoch ~= '' and start()
if from then
  if from == seq then
    complete = 1
  elseif from < seq and seq - from <= @REPLAY@ and state[6] then
    local found = after(from)
    if not found and from == seq - 1 then found = {state[3]} end
    if found and #found > 1 and not whole_seq
        and tonumber(string.match(found[1], '"ts":(%d+)')) <= oldest then
      found = nil
    end
    if found then complete, entries = 1, found end
  end
end
if ARGV[5] == '' then return {epoch, seq, '', '', {}, complete, entries} end
return {epoch, seq, state[3] or '', state[4] or '', updates, complete, entries}
"""
)

# KEYS: log. ARGV: the id before which to read, the limit. Returns the newest entry first.
_BEFORE = """
local found = {}
for i, each in ipairs(redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', ARGV[2])) do
  found[i] = each[2][2]
end
return found
"""

# KEYS: head, log. ARGV: the pub/sub channel; the time that the newest entry must not be younger
# than, or ''. Does nothing if a node is subscribed to it. Returns 1 if the channel is deleted.
_FORGET = """
if redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2] ~= 0 then return 0 end
if ARGV[2] ~= '' then
  local last = redis.call('HGET', KEYS[1], 'last')
  local ts = last and tonumber(string.match(last, '"ts":(%d+)'))
  if ts and ts > tonumber(ARGV[2]) then return 0 end
end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
"""


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """A Lua script, loaded anew into each incarnation of a server."""

    text: bytes

    def render(self, incarnation: bytes) -> bytes:
        """The script's text for one incarnation of a server."""
        return self.text.replace(b"@HOME@", incarnation)


def sha_of(program: bytes) -> bytes:
    """The SHA by which Redis runs a script."""

    return sha1(program, usedforsecurity=False).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of each channel of a kind."""

    messages: int
    bytes: int
    age_ms: int
    replay_messages: int
    claim_ms: int
    idle_ms: int

    @property
    def log_ms(self) -> int:
        """How long a log outlives its newest entry."""
        return self.age_ms + CLOCK_SKEW_MS


@dataclass(frozen=True, slots=True)
class Scripts:
    """The scripts with the bounds inlined, so that calls need not send them."""

    bounds: Bounds
    publish: Script
    read: Script
    before: Script
    forget: Script

    @staticmethod
    def build(bounds: Bounds) -> "Scripts":
        """Create the scripts for these bounds."""
        words = {
            "@HEAD@": HEAD_FORMAT,
            "@MESSAGES@": bounds.messages,
            "@BYTES@": bounds.bytes,
            "@AGE_MS@": bounds.age_ms,
            "@REPLAY@": bounds.replay_messages,
            "@TRIM@": _MAX_TRIMMED,
            "@LOG_MS@": bounds.log_ms,
            "@CLAIM_MS@": bounds.claim_ms,
            "@IDLE_MS@": bounds.idle_ms,
            "@PAST@": _MAX_PAST_EPOCHS,
        }
        scripts = (build_script(each, words) for each in (_PUBLISH, _READ, _BEFORE, _FORGET))
        return Scripts(bounds, *scripts)

    def __iter__(self) -> Iterator[Script]:
        yield from (self.publish, self.read, self.before, self.forget)


@dataclass(frozen=True, slots=True)
class ScriptsByKind:
    """The scripts of each kind of channel."""

    topics: Scripts
    sessions: Scripts

    def of(self, channel: str) -> Scripts:
        """The scripts of a channel."""
        return self.sessions if is_session_channel(channel) else self.topics


def build_script(text: str, values: dict[str, object]) -> Script:
    for word, value in values.items():
        text = text.replace(word, str(value))
    return Script(text.strip().encode())


# Returns the incarnation of the server that runs it.
GET_INCARNATION = (INCARNATION_FUNCTION + "return home()").encode()
