"""The Lua scripts of the notice store, each atomic; all keys share one hash tag."""

from server.brokers.redis.log.scripts import build_script

# What a notice costs besides its text.
_NOTICE_BYTES = 1024
# How much one call handles, which bounds the time that Redis serves nobody else.
_MAX_EXPIRED = 256
_PAGE_SIZE = 256

# In all: KEYS: the pending notices by name, with their numbers, and the last number (#); the
# acknowledged names by expiry; the index: the names in order, each with its size; the orgs by
# their next expiry; by their number of notices; by their bytes; the total number and bytes.
# ARGV: the stem of the keys of orgs: the names of an org by expiry.
# A name is the JSON of org, user and id, so the notices of a user have one prefix.
_INDEX = """
local waiting, settled, names, orgs, counts, sizes, totals = unpack(KEYS)
local stem = ARGV[1]

local function indexed(name)
  return redis.call('ZRANGE', names, '[' .. name .. ' ', '[' .. name .. ' \\255', 'BYLEX')[1]
end

local function org_of(name)
  local ok, parts = pcall(cjson.decode, name)
  return ok and type(parts) == 'table' and type(parts[1]) == 'string' and parts[1] or nil
end

local function count(org, number, bytes)
  redis.call('HINCRBY', totals, 'count', number)
  redis.call('HINCRBY', totals, 'bytes', bytes)
  local left = (tonumber(redis.call('ZSCORE', counts, org)) or 0) + number
  if left <= 0 then
    for _, each in ipairs({counts, sizes, orgs}) do redis.call('ZREM', each, org) end
    return
  end
  redis.call('ZADD', counts, left, org)
  redis.call('ZADD', sizes, (tonumber(redis.call('ZSCORE', sizes, org)) or 0) + bytes, org)
end

local function forget(name, member)
  redis.call('ZREM', names, member)
  local org = org_of(name)
  redis.call('ZREM', stem .. org, name)
  count(org, -1, -tonumber(string.match(member, ' (%d+)$')))
end

local function remember(name, value)
  local org = org_of(name)
  local until_ms = tonumber(string.match(value, '"until":(%d+)'))
  if not org or not until_ms then
    redis.call('HDEL', waiting, name)
    return
  end
  local size = #value + @NOTICE_BYTES@
  redis.call('ZADD', names, 0, name .. ' ' .. size)
  redis.call('ZADD', stem .. org, until_ms, name)
  count(org, 1, size)
  local next = tonumber(redis.call('ZSCORE', orgs, org))
  if not next or until_ms < next then redis.call('ZADD', orgs, until_ms, org) end
end

local function drop(name)
  redis.call('HDEL', waiting, name)
  local member = indexed(name)
  if member then forget(name, member) end
end

-- Processes of the release before change only the pending notices.
local function reindex(name)
  local value, member = redis.call('HGET', waiting, name), indexed(name)
  if value and not member then remember(name, value) end
  if member and not value then forget(name, member) end
end

local function is_indexed()
  local kept = redis.call('HLEN', waiting) - redis.call('HEXISTS', waiting, '#')
  return kept == (tonumber(redis.call('HGET', totals, 'count')) or 0)
end
"""

# ARGV: the pub/sub channel, the encoded notice, its name, the time in ms, the prefix of the user's
# names, the limits: of the user's number, of the org's number and bytes, of all.
# Returns 1 if the notice is new, else 0, and how many were evicted for it.
_POST = (
    _INDEX
    + """
local channel, message, name, now, prefix = unpack(ARGV, 2, 6)
local per_user, per_org, org_bytes, per_all, all_bytes = unpack(ARGV, 7)
redis.call('ZREMRANGEBYSCORE', settled, '-inf', now)
if redis.call('HEXISTS', waiting, name) == 1 or redis.call('ZSCORE', settled, name) then
  return {0, 0}
end
local number = redis.call('HINCRBY', waiting, '#', 1)
redis.call('HSET', waiting, name, string.format('%d ', number) .. message)
remember(name, redis.call('HGET', waiting, name))

local evicted = 0
local function evict(each)
  if not each then return false end
  drop(each)
  evicted = evicted + 1
  return true
end

local function oldest_of_user()
  local oldest, first
  for _, member in ipairs(
      redis.call('ZRANGE', names, '[' .. prefix, '[' .. prefix .. '\\255', 'BYLEX')) do
    local each = string.match(member, '^(.*) %d+$')
    local value = redis.call('HGET', waiting, each)
    local at = value and tonumber(string.match(value, '^(%d+)')) or 0
    if not first or at < first then oldest, first = each, at end
  end
  return oldest
end

local function oldest_of(org)
  return org and redis.call('ZRANGE', stem .. org, 0, 0)[1]
end

local function largest(by)
  return redis.call('ZRANGE', by, 0, 0, 'REV')[1]
end

local function exceeds(total, limit)
  return (tonumber(total) or 0) > tonumber(limit)
end

local org = org_of(name)
if redis.call('ZRANGE', names, '[' .. prefix, '[' .. prefix .. '\\255', 'BYLEX', 'LIMIT', per_user,
    1)[1] then
  evict(oldest_of_user())
end
while exceeds(redis.call('ZSCORE', counts, org), per_org)
    or exceeds(redis.call('ZSCORE', sizes, org), org_bytes) do
  if not evict(oldest_of(org)) then break end
end
while exceeds(redis.call('HGET', totals, 'count'), per_all) do
  if not evict(oldest_of(largest(counts))) then break end
end
while exceeds(redis.call('HGET', totals, 'bytes'), all_bytes) do
  if not evict(oldest_of(largest(sizes))) then break end
end
redis.call('PUBLISH', channel, message)
return {1, evicted}
"""
)

# ARGV: the pub/sub channel, the encoded acknowledgement, the notice's name, when it is forgotten.
# Returns 1 if the notice was pending.
_ACKNOWLEDGE = (
    _INDEX
    + """
if redis.call('HEXISTS', waiting, ARGV[4]) == 0 then return 0 end
drop(ARGV[4])
redis.call('ZADD', settled, ARGV[5], ARGV[4])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
"""
)

# KEYS: the pending notices, the index of their names. ARGV: the prefix of a user's names. Returns
# the notices with their numbers.
_READ = """
local found = {}
for _, member in ipairs(
    redis.call('ZRANGE', KEYS[2], '[' .. ARGV[1], '[' .. ARGV[1] .. '\\255', 'BYLEX')) do
  local value = redis.call('HGET', KEYS[1], string.match(member, '^(.*) %d+$'))
  if value then found[#found + 1] = value end
end
return found
"""

# ARGV: the time in ms. Drops what has expired. Returns those notices, and 1 if the index is
# complete, else 0.
_EXPIRE = (
    _INDEX
    + """
local expired = {}
for _, org in ipairs(redis.call('ZRANGEBYSCORE', orgs, '-inf', ARGV[2], 'LIMIT', 0, 16)) do
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', stem .. org, '-inf', ARGV[2], 'LIMIT', 0,
      @EXPIRED@ - #expired)) do
    local value = redis.call('HGET', waiting, name)
    if value then expired[#expired + 1] = value end
    drop(name)
  end
  local next = redis.call('ZRANGE', stem .. org, 0, 0, 'WITHSCORES')[2]
  if next then redis.call('ZADD', orgs, next, org) end
end
return {expired, is_indexed() and 1 or 0}
"""
)

# ARGV: names. Brings the index to what is pending under these names.
_REINDEX = (
    _INDEX
    + """
for i = 2, #ARGV do reindex(ARGV[i]) end
return 1
"""
)

# ARGV: a cursor, 0 at first. Brings the index to a page of the pending notices. Returns the next
# cursor.
_REINDEX_PENDING = (
    _INDEX
    + """
local page = redis.call('HSCAN', waiting, ARGV[2], 'COUNT', @PAGE@)
for i = 1, #page[2], 2 do
  if page[2][i] ~= '#' then reindex(page[2][i]) end
end
return page[1]
"""
)

# ARGV: the last name of the page before, '' at first. Removes from a page of the index what is not
# pending. Returns the last name of the page, '' after the last page.
_CLEAN_INDEX = (
    _INDEX
    + """
local from = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local page = redis.call('ZRANGE', names, from, '+', 'BYLEX', 'LIMIT', 0, @PAGE@)
for _, member in ipairs(page) do reindex(string.match(member, '^(.*) %d+$')) end
return #page == @PAGE@ and page[#page] or ''
"""
)

_VALUES: dict[str, object] = {
    "@NOTICE_BYTES@": _NOTICE_BYTES,
    "@EXPIRED@": _MAX_EXPIRED,
    "@PAGE@": _PAGE_SIZE,
}
POST, ACKNOWLEDGE, READ, EXPIRE, REINDEX, REINDEX_PENDING, CLEAN_INDEX = SCRIPTS = tuple(
    build_script(text, _VALUES)
    for text in (_POST, _ACKNOWLEDGE, _READ, _EXPIRE, _REINDEX, _REINDEX_PENDING, _CLEAN_INDEX)
)
