"""Brokers: where positions are given and entries kept."""

from server.brokers.errors import BrokerError
from server.brokers.memory.broker import MemoryBroker, MemoryConfig
from server.brokers.memory.handover import MemoryHandover
from server.brokers.memory.notices import MemoryNoticeBoard
from server.brokers.memory.presence import MemoryAssembly
from server.brokers.redis import (
    Address,
    AddressError,
    RedisAssembly,
    RedisBroker,
    RedisConfig,
    RedisHandover,
    RedisNoticeBoard,
    RedisPlaces,
)

__all__ = [
    "Address",
    "AddressError",
    "BrokerError",
    "MemoryAssembly",
    "MemoryBroker",
    "MemoryConfig",
    "MemoryHandover",
    "MemoryNoticeBoard",
    "RedisAssembly",
    "RedisBroker",
    "RedisConfig",
    "RedisHandover",
    "RedisNoticeBoard",
    "RedisPlaces",
]
