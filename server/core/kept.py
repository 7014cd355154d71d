"""Values that are kept until a time: their limits, and copies of the kinds that a node follows."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError

MAX_KEY_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class KeptValue:
    """A value, and the time in ms from which there is none."""

    data: bytes
    until_ms: int


@dataclass(frozen=True, slots=True)
class KeptLimits:
    """Bounds of one kind, and of what one call puts."""

    max_values: int = 100_000
    put_bytes: int = 1024 * 1024
    # In memory, of all kinds; a kind with less than the reserve always finds room, so that
    # candles or instruments keep no revocation out.
    total_bytes: int = 256 * 1024 * 1024
    reserve_bytes: int = 16 * 1024 * 1024

    def check(self, values: Mapping[str, bytes]) -> None:
        """Raise `LimitError` if one call puts too much, `ValueError` for an unusable key."""
        for key in values:
            if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
                raise ValueError(f"a key has 1 to {MAX_KEY_CHARACTERS} characters")
        size = sum(len(key) + len(value) for key, value in values.items())
        if size > self.put_bytes:
            raise LimitError(
                ErrorCode.LIMIT_PAYLOAD, f"{size} bytes are too many to keep in one call"
            )


def too_many_kept(kind: str) -> LimitError:
    """The error for a value that finds no room."""
    return LimitError(ErrorCode.SERVER_OVERLOADED, f"too much is kept of {kind}")


class KeptCopies:
    """The values of the followed kinds on this node; calls back when one changes."""

    def __init__(self) -> None:
        self._callbacks: dict[str, list[Callable[[str, bytes | None], None]]] = defaultdict(list)
        self._values: dict[str, dict[str, KeptValue]] = {}
        # When, and of what, a value may expire; it may have been replaced since.
        self._expiries: list[tuple[int, str, str]] = []

    @property
    def kinds(self) -> tuple[str, ...]:
        """The followed kinds."""
        return tuple(self._callbacks)

    def follow(self, kind: str, on_change: Callable[[str, bytes | None], None]) -> None:
        """Call back about the changes of a kind."""
        self._callbacks[kind].append(on_change)
        self._values.setdefault(kind, {})

    def clear(self) -> None:
        """Forget all values, without calling back."""
        self._expiries.clear()
        for values in self._values.values():
            values.clear()

    def put(self, kind: str, key: str, value: KeptValue) -> None:
        """Take over a value; a no-op for a kind that is not followed."""
        known = self._values.get(kind)
        if known is None:
            return
        previous = known.get(key)
        if previous == value:
            return
        known[key] = value
        if previous is None or previous.until_ms != value.until_ms:
            heapq.heappush(self._expiries, (value.until_ms, kind, key))
        if previous is None or previous.data != value.data:
            self._call(kind, key, value.data)

    def delete(self, kind: str, key: str) -> None:
        """Delete a value; a no-op if it is unknown."""
        if self._values.get(kind, {}).pop(key, None) is not None:
            self._call(kind, key, None)

    def replace(self, kind: str, values: Mapping[str, KeptValue]) -> None:
        """Take over all values of a kind: others are deleted."""
        for key in self._values.get(kind, {}).keys() - values.keys():
            self.delete(kind, key)
        for key, value in values.items():
            self.put(kind, key, value)

    def sweep(self, now_ms: int) -> None:
        """Delete the values whose time is over."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            _, kind, key = heapq.heappop(self._expiries)
            value = self._values[kind].get(key)
            if value is not None and value.until_ms <= now_ms:
                self.delete(kind, key)

    def _call(self, kind: str, key: str, data: bytes | None) -> None:
        for on_change in self._callbacks[kind]:
            on_change(key, data)
