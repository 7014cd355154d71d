"""The backends for many nodes, over Redis or Valkey."""

from server.brokers.redis.broker import RedisBroker
from server.brokers.redis.config import RedisConfig, RedisShares
from server.brokers.redis.connection.address import Address, AddressError
from server.brokers.redis.connection.cluster import RedisCluster
from server.brokers.redis.connection.node_session import NodeSession
from server.brokers.redis.kept import RedisKeptValues
from server.brokers.redis.limits.shared_limits import RedisSharedLimits
from server.brokers.redis.notices.store import RedisNoticeStore
from server.brokers.redis.presence.manager import RedisPresence
from server.brokers.redis.recovery.handover import RedisHandover

__all__ = [
    "Address",
    "AddressError",
    "NodeSession",
    "RedisBroker",
    "RedisCluster",
    "RedisConfig",
    "RedisHandover",
    "RedisKeptValues",
    "RedisNoticeStore",
    "RedisPresence",
    "RedisSharedLimits",
    "RedisShares",
]
