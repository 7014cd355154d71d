"""Counts what is written to clients, by the group and not by the client."""

from server.core.counters import Counters
from server.core.histograms import Histogram

_AGE = "delivery.age"


class Traffic:
    """Messages, bytes and writes since the start, counted once per recipient."""

    __slots__ = ("_counters", "bytes", "flush_seconds", "messages", "writes")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.messages = self.bytes = self.writes = 0
        self.flush_seconds = counters.histogram("delivery.flush")

    def count(self, messages: int, writes: int, size_bytes: int) -> None:
        """Count what one batch, tier or client is sent."""
        self.messages += messages
        self.writes += writes
        self.bytes += size_bytes

    def ages(self, label: str, interval_ms: int) -> Histogram:
        """How old messages are when they are written, by stream and interval."""
        return self._counters.histogram(_AGE, label, str(interval_ms))
