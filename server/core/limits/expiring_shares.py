"""Shares of items that another store keeps for some time, such as the streams and ids in Redis."""

from collections import OrderedDict
from typing import Generic

from server.core.limits.shares import K, Owner, ShareLimits, Shares, is_about

# A change is recorded at most so often if it changes little.
_RECORD_SECONDS = 1.0


class ExpiringShares(Generic[K]):
    """Items that end `keep_seconds` after their last change, bounded by org and by publisher.

    Sizes are about right, and the order of changes within a second is not recorded.
    """

    def __init__(self, limits: ShareLimits, *, keep_seconds: float) -> None:
        self._keep_seconds = keep_seconds
        self._shares: Shares[K] = Shares(limits)
        # The owner, the last change and the size then, the oldest first.
        self._items: OrderedDict[K, tuple[Owner, float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, name: K, owner: Owner, size_bytes: int, now: float) -> list[K]:
        """Record an item; returns the items to delete, which count no more.

        They are the oldest of the largest holder, and never the item itself.
        """
        known = self._items.get(name)
        if (
            known is not None
            and known[0] == owner
            and 0.0 <= now - known[1] < _RECORD_SECONDS
            and is_about(size_bytes, known[2])
        ):
            return []
        self._expire(now)
        known = self._items.get(name)
        if known is not None and known[0] != owner:
            self._shares.remove(known[0], name)
        self._items[name] = (owner, now, size_bytes)
        self._items.move_to_end(name)
        surplus_names: list[K] = []
        if self._shares.put(owner, name, size_bytes):
            while (surplus := self._shares.surplus(owner)) is not None:
                oldest = next(iter(surplus.names))
                if oldest == name:
                    break
                self._drop(oldest)
                surplus_names.append(oldest)
        return surplus_names

    def remove(self, name: K) -> None:
        """Count an item no more; a no-op if it is unknown."""
        if name in self._items:
            self._drop(name)

    def _expire(self, now: float) -> None:
        while self._items:
            name = next(iter(self._items))
            if self._items[name][1] + self._keep_seconds > now:
                break
            self._drop(name)

    def _drop(self, name: K) -> None:
        self._shares.remove(self._items.pop(name)[0], name)
