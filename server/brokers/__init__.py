"""Backends for logs, presence, recovery, limits and notices: in memory, in a file, or in Redis."""

from typing import TYPE_CHECKING

from server.brokers.errors import BrokerError
from server.brokers.file import (
    FileBroker,
    FileConfig,
    FileHandover,
    FileKeptValues,
    FileNoticeStore,
    FilePresence,
    FileStore,
    back_up,
    check_file,
    file_occupancy,
    repair_file,
)
from server.brokers.memory.broker import MemoryBroker, MemoryConfig
from server.brokers.memory.cluster import MemoryCluster
from server.brokers.memory.handover import MemoryHandover
from server.brokers.memory.kept import MemoryKeptValues
from server.brokers.memory.notices import MemoryNoticeStore
from server.brokers.memory.occupancy import MemoryHookQueue, MemoryOccupancy
from server.brokers.memory.presence import MemoryPresence
from server.brokers.redis.config import RedisConfig, RedisShares
from server.brokers.redis.connection.address import Address, AddressError
from server.brokers.registry import is_installed, open_backend
from server.exports import lazy_exports

if TYPE_CHECKING:
    from server.brokers.export import DataExport
    from server.brokers.redis import (
        NodeSession,
        RedisBroker,
        RedisCluster,
        RedisHandover,
        RedisKeptValues,
        RedisNoticeStore,
        RedisPresence,
        RedisSharedLimits,
    )
    from server.brokers.redis.connection.keys import Keys
    from server.brokers.redis.occupancy.feeds import RedisFeedWatch
    from server.brokers.redis.occupancy.occupancy import RedisOccupancy
    from server.brokers.redis.occupancy.queue import RedisHookQueue
    from server.brokers.transfer import DataImport
else:
    __getattr__ = lazy_exports(
        {
            "server.brokers.redis": (
                "NodeSession",
                "RedisBroker",
                "RedisCluster",
                "RedisHandover",
                "RedisKeptValues",
                "RedisNoticeStore",
                "RedisPresence",
                "RedisSharedLimits",
            ),
            "server.brokers.redis.connection.keys": ("Keys",),
            "server.brokers.redis.occupancy.feeds": ("RedisFeedWatch",),
            "server.brokers.redis.occupancy.occupancy": ("RedisOccupancy",),
            "server.brokers.redis.occupancy.queue": ("RedisHookQueue",),
            "server.brokers.export": ("DataExport",),
            "server.brokers.transfer": ("DataImport",),
        }
    )

__all__ = [
    "Address",
    "AddressError",
    "BrokerError",
    "DataExport",
    "DataImport",
    "FileBroker",
    "FileConfig",
    "FileHandover",
    "FileKeptValues",
    "FileNoticeStore",
    "FilePresence",
    "FileStore",
    "Keys",
    "MemoryBroker",
    "MemoryCluster",
    "MemoryConfig",
    "MemoryHandover",
    "MemoryHookQueue",
    "MemoryKeptValues",
    "MemoryNoticeStore",
    "MemoryOccupancy",
    "MemoryPresence",
    "NodeSession",
    "RedisBroker",
    "RedisCluster",
    "RedisConfig",
    "RedisFeedWatch",
    "RedisHandover",
    "RedisHookQueue",
    "RedisKeptValues",
    "RedisNoticeStore",
    "RedisOccupancy",
    "RedisPresence",
    "RedisSharedLimits",
    "RedisShares",
    "back_up",
    "check_file",
    "file_occupancy",
    "is_installed",
    "open_backend",
    "repair_file",
]
