"""The broker for many nodes, over Redis or Valkey."""

from server.brokers.redis.address import Address, AddressError
from server.brokers.redis.assembly import RedisAssembly
from server.brokers.redis.board import RedisNoticeBoard
from server.brokers.redis.broker import RedisBroker, RedisConfig
from server.brokers.redis.handover import RedisHandover
from server.brokers.redis.places import RedisPlaces

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
