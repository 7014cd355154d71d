"""Brokers: where positions are given and entries kept."""

from server.brokers.errors import BrokerError
from server.brokers.memory import MemoryBroker, MemoryConfig
from server.brokers.memory_assembly import MemoryAssembly
from server.brokers.memory_board import MemoryNoticeBoard
from server.brokers.redis import (
    Address,
    AddressError,
    RedisAssembly,
    RedisBroker,
    RedisConfig,
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
    "MemoryNoticeBoard",
    "RedisAssembly",
    "RedisBroker",
    "RedisConfig",
    "RedisNoticeBoard",
    "RedisPlaces",
]
