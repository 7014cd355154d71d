"""Brokers: where positions are given and entries kept."""

from server.brokers.errors import BrokerError
from server.brokers.memory import MemoryBroker, MemoryConfig
from server.brokers.memory_assembly import MemoryAssembly
from server.brokers.memory_board import MemoryNoticeBoard
from server.brokers.memory_handover import MemoryHandover
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
