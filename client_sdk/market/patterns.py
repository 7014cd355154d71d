"""Patterns such as `PRICE:*` that this client's readers read, and the topics found so far."""

from fnmatch import fnmatchcase

from client_sdk.contract import MarketMessage
from client_sdk.reading.readers import Reader


def is_pattern(topic: str) -> bool:
    """Whether a name stands for many topics."""
    return "*" in topic


class PatternSubscription:
    """One pattern, its readers, and the shortest interval that they ask for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.readers: dict[Reader[MarketMessage], int] = {}
        self.needs_sync = True

    @property
    def interval_ms(self) -> int:
        """The interval to request."""
        return min(self.readers.values(), default=0)

    def matches(self, topic: str) -> bool:
        """Whether the pattern stands for a topic."""
        return fnmatchcase(topic, self.name)
