"""Brokers: where positions are given and entries kept."""

from server.brokers.memory import MemoryBroker, MemoryConfig

__all__ = ["MemoryBroker", "MemoryConfig"]
