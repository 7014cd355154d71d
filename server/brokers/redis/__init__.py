"""The backends for many nodes, over Redis or Valkey."""

from typing import TYPE_CHECKING

from server.brokers.redis.config import RedisConfig, RedisShares
from server.brokers.redis.connection.address import Address, AddressError
from server.exports import lazy_exports

if TYPE_CHECKING:
    from server.brokers.redis.broker import RedisBroker
    from server.brokers.redis.connection.cluster import RedisCluster
    from server.brokers.redis.connection.node_session import NodeSession
    from server.brokers.redis.kept import RedisKeptValues
    from server.brokers.redis.limits.shared_limits import RedisSharedLimits
    from server.brokers.redis.notices.store import RedisNoticeStore
    from server.brokers.redis.presence.manager import RedisPresence
    from server.brokers.redis.recovery.handover import RedisHandover
else:
    __getattr__ = lazy_exports(
        {
            "server.brokers.redis.broker": ("RedisBroker",),
            "server.brokers.redis.connection.cluster": ("RedisCluster",),
            "server.brokers.redis.connection.node_session": ("NodeSession",),
            "server.brokers.redis.kept": ("RedisKeptValues",),
            "server.brokers.redis.limits.shared_limits": ("RedisSharedLimits",),
            "server.brokers.redis.notices.store": ("RedisNoticeStore",),
            "server.brokers.redis.presence.manager": ("RedisPresence",),
            "server.brokers.redis.recovery.handover": ("RedisHandover",),
        }
    )

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
