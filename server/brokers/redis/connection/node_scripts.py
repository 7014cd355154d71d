"""The Lua scripts of a node's heartbeat, each atomic."""

from server.brokers.redis.log.scripts import build_script

# KEYS: the nodes. ARGV: this node, its heartbeat, the time before which dead nodes are forgotten.
# Returns 'dead', 'known' or 'new', and all nodes.
_BEAT = """
local mine = redis.call('HGET', KEYS[1], ARGV[1])
if mine and string.sub(mine, 1, 1) == '-' then return {'dead', {}} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local found = redis.call('HGETALL', KEYS[1])
for i = 1, #found, 2 do
  local dead = string.match(found[i + 1], '^%-(%d+)$')
  if dead and tonumber(dead) < tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], found[i]) end
end
return {mine and 'known' or 'new', found}
"""

# KEYS: the nodes. ARGV: a node, its last heartbeat, the time. Declares it dead if it is unchanged.
_DECLARE_DEAD = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], '-' .. ARGV[3])
return 1
"""

BEAT = build_script(_BEAT, {})
DECLARE_DEAD = build_script(_DECLARE_DEAD, {})
