"""The configuration of the services over Redis."""

from dataclasses import dataclass, field

from server.brokers.redis.connection.address import Address
from server.brokers.redis.connection.schema import CURRENT, Schema
from server.core.limits.shares import NO_SHARES, ShareLimits
from server.core.sessions.histories import HistoryRules


@dataclass(frozen=True, slots=True)
class RedisShares:
    """What each org and publisher may keep: topics over all nodes, the rest by node."""

    topics: ShareLimits = NO_SHARES
    histories: ShareLimits = NO_SHARES
    claims: ShareLimits = NO_SHARES
    session_histories: ShareLimits = NO_SHARES
    silent_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """The address of Redis, time limits, and bounds of what is stored."""

    address: Address
    prefix: str = "floorcast"
    timeout_seconds: float = 2.0
    max_queued: int = 20_000
    max_entry_bytes: int = 4 * 1024 * 1024
    idle_seconds: float = 7 * 86_400
    lease_seconds: float = 8.0
    # How many replicas must have a message before it is acknowledged.
    acknowledging_replicas: int = 0
    idempotency_seconds: float = 120.0
    histories: HistoryRules = field(default_factory=HistoryRules)
    schema: Schema = CURRENT
    shares: RedisShares = field(default_factory=RedisShares)
