"""The broker for many nodes, over Redis or Valkey."""

from server.brokers.redis.broker import RedisBroker, RedisConfig
from server.brokers.redis.connection.address import Address, AddressError
from server.brokers.redis.limits.shared_limits import RedisPlaces
from server.brokers.redis.notices.store import RedisNoticeBoard
from server.brokers.redis.presence.manager import RedisAssembly
from server.brokers.redis.recovery.handover import RedisHandover

__all__ = [
    "Address",
    "AddressError",
    "RedisAssembly",
    "RedisBroker",
    "RedisConfig",
    "RedisHandover",
    "RedisNoticeBoard",
    "RedisPlaces",
]
