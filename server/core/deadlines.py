"""Keeps one deadline for each of many keys, without a timer for each."""

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """A timer wheel: slots of time, each with the keys that are due in it.

    Setting and cancelling cost O(1) with any number of keys. A key is never reported before its
    deadline, and at most one slot after it. A resolution that is a power of two divides without
    rounding.
    """

    __slots__ = ("_last_slot", "_resolution", "_slot_of", "_slots")

    def __init__(self, *, resolution_seconds: float = 0.03125) -> None:
        self._resolution = resolution_seconds
        self._slots: dict[int, set[K]] = {}
        self._slot_of: dict[K, int] = {}
        # The last slot that `pop_due` has emptied.
        self._last_slot: int | None = None

    def __len__(self) -> int:
        return len(self._slot_of)

    def __contains__(self, key: object) -> bool:
        return key in self._slot_of

    def set(self, key: K, when: float) -> None:
        """Set the key's deadline; replaces an earlier one."""
        slot = -int(-when // self._resolution)
        if self._last_slot is not None:
            slot = max(slot, self._last_slot + 1)
        previous = self._slot_of.get(key)
        if previous == slot:
            return
        if previous is not None:
            self._remove_from_slot(key, previous)
        self._slot_of[key] = slot
        self._slots.setdefault(slot, set()).add(key)

    def cancel(self, key: K) -> None:
        """Remove the key's deadline; a no-op for an unknown key."""
        slot = self._slot_of.pop(key, None)
        if slot is not None:
            self._remove_from_slot(key, slot)

    def pop_due(self, now: float) -> list[K]:
        """Remove and return the keys whose deadline has passed."""
        if now == math.inf:
            current = max(self._slots, default=0)
        else:
            current = int(now // self._resolution)
        if self._last_slot is None or current - self._last_slot > len(self._slots):
            slots = sorted(slot for slot in self._slots if slot <= current)
        else:
            slots = [
                slot for slot in range(self._last_slot + 1, current + 1) if slot in self._slots
            ]
        self._last_slot = current if self._last_slot is None else max(self._last_slot, current)
        keys = [key for slot in slots for key in self._slots.pop(slot)]
        for key in keys:
            del self._slot_of[key]
        return keys

    def _remove_from_slot(self, key: K, slot: int) -> None:
        keys = self._slots[slot]
        keys.discard(key)
        if not keys:
            del self._slots[slot]
