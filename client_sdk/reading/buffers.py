"""What came and was not read yet, bounded: the latest of a topic, or one after the other."""

from collections import deque
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class _LatestSlot:
    """A place in the line whose item is replaced until somebody takes it."""

    __slots__ = ("topic",)

    def __init__(self, topic: str) -> None:
        self.topic = topic


class Buffer(Generic[ItemT]):
    """Takes turns between topics in the order in which each first had something to say."""

    __slots__ = ("_capacity", "_kept_count", "_latest", "_queue")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: deque[ItemT | _LatestSlot] = deque()
        self._latest: dict[str, ItemT] = {}
        self._kept_count = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether another item that must be kept has no room."""
        return self._kept_count >= self._capacity

    @property
    def has_space(self) -> bool:
        """Whether so much was read that it is worth fetching more."""
        return self._kept_count <= self._capacity // 2

    def replace(self, topic: str, item: ItemT) -> bool:
        """Put the latest of a topic; True where it stands for one that nobody has read."""
        replaced = topic in self._latest
        if not replaced:
            self._queue.append(_LatestSlot(topic))
        self._latest[topic] = item
        return replaced

    def put(self, item: ItemT) -> None:
        """Put one that must be kept; the caller looks at `is_full` first."""
        self._queue.append(item)
        self._kept_count += 1

    def take(self) -> ItemT | None:
        """The next item, or None."""
        if not self._queue:
            return None
        item = self._queue.popleft()
        if isinstance(item, _LatestSlot):
            return self._latest.pop(item.topic)
        self._kept_count -= 1
        return item
