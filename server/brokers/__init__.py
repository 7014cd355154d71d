"""Brokers: where positions are given and entries kept."""

from server.brokers.memory import MemoryBroker

__all__ = ["MemoryBroker"]
