"""Which releases may share a Redis: a version of the schema, kept there and checked at start."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.brokers.errors import BrokerError
from server.brokers.redis.connection.replies import as_int, as_list

if TYPE_CHECKING:
    # The configuration needs no driver.
    from server.brokers.redis.connection.pipeline import Pipeline

# KEYS: the schema. ARGV: the schema of this release, and the oldest that it may share with.
# Returns the schema of another release that cannot share, or nothing; records the newest one.
_CHECK = b"""
local known = redis.call('HMGET', KEYS[1], 'schema', 'oldest')
local schema, oldest = tonumber(known[1]), tonumber(known[2])
local mine, accepted = tonumber(ARGV[1]), tonumber(ARGV[2])
if schema and oldest and (oldest > mine or schema < accepted) then return {schema, oldest} end
if not schema or schema < mine then
  redis.call('HSET', KEYS[1], 'schema', mine, 'oldest', accepted)
end
return {}
"""


@dataclass(frozen=True, slots=True)
class Schema:
    """A version of keys, payloads and scripts, and the oldest that works beside it.

    Raise `version` with every change that a running process of the release before must know, and
    `oldest` with every change that it cannot follow.
    """

    version: int
    oldest: int


# The releases before kept no version; they are 1.
CURRENT = Schema(version=2, oldest=1)


async def check_schema(pipeline: "Pipeline", key: bytes, schema: Schema) -> None:
    """Record the schema of a release in Redis; raises `BrokerError` if it cannot be shared.

    A Redis without a version is empty, or used by the release before.
    """
    reply = await pipeline.run((b"EVAL", _CHECK, 1, key, schema.version, schema.oldest))
    if not reply:
        return
    version, oldest = map(as_int, as_list(reply))
    age = "newer" if oldest > schema.version else "older"
    raise BrokerError(
        f"a release with the {age} schema {version} uses this Redis, and this release has schema "
        f"{schema.version}: they cannot share it (docs/redis.md, Versions); upgrade one release "
        "after the other, or set another broker.prefix"
    )
