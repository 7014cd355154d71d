"""Brokers: where positions are given and entries kept."""

from server.brokers.errors import BrokerError
from server.brokers.memory import MemoryBroker, MemoryConfig
from server.brokers.memory_assembly import MemoryAssembly
from server.brokers.redis import Address, AddressError, RedisAssembly, RedisBroker, RedisConfig

__all__ = [
    "Address",
    "AddressError",
    "BrokerError",
    "MemoryAssembly",
    "MemoryBroker",
    "MemoryConfig",
    "RedisAssembly",
    "RedisBroker",
    "RedisConfig",
]
