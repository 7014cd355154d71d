"""Backends for logs, presence, recovery, limits and notices: in memory or in Redis."""

from server.brokers.errors import BrokerError
from server.brokers.memory.broker import MemoryBroker, MemoryConfig
from server.brokers.memory.handover import MemoryHandover
from server.brokers.memory.notices import MemoryNoticeStore
from server.brokers.memory.presence import MemoryPresence
from server.brokers.redis import (
    Address,
    AddressError,
    NodeSession,
    RedisBroker,
    RedisConfig,
    RedisHandover,
    RedisNoticeStore,
    RedisPresence,
    RedisSharedLimits,
    RedisShares,
)
from server.brokers.registry import is_installed, open_backend

__all__ = [
    "Address",
    "AddressError",
    "BrokerError",
    "MemoryBroker",
    "MemoryConfig",
    "MemoryHandover",
    "MemoryNoticeStore",
    "MemoryPresence",
    "NodeSession",
    "RedisBroker",
    "RedisConfig",
    "RedisHandover",
    "RedisNoticeStore",
    "RedisPresence",
    "RedisSharedLimits",
    "RedisShares",
    "is_installed",
    "open_backend",
]
