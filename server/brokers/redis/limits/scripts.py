"""The script that counts the connections of one address or user, atomically."""

from server.brokers.redis.log.scripts import build_script

# Each node reports its count every few minutes; unreported counts expire after this.
COUNT_TTL_MS = 900_000
# Clocks of nodes differ, so the bucket is kept a little longer than until it is full.
_CLOCK_SKEW_MS = 1_000

# KEYS: the count per node and, if attempts are limited, the token bucket (:left, :at).
# ARGV: this node, its count, how many more it wants, how many of those are attempts not counted
# yet; the limits for all nodes: connections, attempts per second, burst, each 0 if unlimited;
# the time in ms; dead nodes to remove.
# Returns how many were granted, how many attempts were within the rate, ms until the next attempt,
# and the other nodes with connections, if not all were granted or none was wanted.
# Idempotent: a node's count is set, not incremented.
_COUNT = """
local key, node = KEYS[1], ARGV[1]
local has, wants, tries = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local limit, rate, burst = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local now = tonumber(ARGV[8])
for i = 9, #ARGV do redis.call('HDEL', key, ARGV[i]) end
local others, names, tokens, at = 0, {}, burst, now
local found = redis.call('HGETALL', key)
for i = 1, #found, 2 do
  local name, value = found[i], tonumber(found[i + 1])
  if name == ':left' then tokens = value
  elseif name == ':at' then at = value
  elseif name ~= node then
    others = others + value
    table.insert(names, name)
  end
end
local within, wait = tries, 0
if rate > 0 then
  if now > at then
    tokens = math.min(burst, tokens + (now - at) * rate / 1000)
    at = now
  end
  within = math.min(tries, math.floor(tokens + 0.000001))
  tokens = tokens - within
  if within < tries then wait = math.ceil((1 - tokens) * 1000 / rate - 0.000001) end
  if within > 0 then
    redis.call('HSET', key, ':left', string.format('%.9g', tokens),
      ':at', string.format('%.0f', at))
  end
end
local wanted = wants - tries + within
local granted = wanted
if limit > 0 then
  granted = math.max(0, math.min(wanted, limit - others - has))
  if has + granted > 0 then
    redis.call('HSET', key, node, has + granted)
  else
    redis.call('HDEL', key, node)
  end
end
if has + granted + others > 0 and limit > 0 then
  redis.call('PEXPIRE', key, @KEPT_MS@)
elseif rate > 0 then
  redis.call('PEXPIRE', key, math.ceil((burst - tokens) * 1000 / rate) + @SPARE_MS@)
end
if granted == wanted and wants > 0 then names = {} end
return {granted, within, wait, names}
"""

COUNT = build_script(_COUNT, {"@KEPT_MS@": COUNT_TTL_MS, "@SPARE_MS@": _CLOCK_SKEW_MS})
