"""The kept values of a single process, in memory."""

from collections import defaultdict
from collections.abc import Mapping

from server.core.kept import KeptCopies, KeptLimits, KeptValue, too_many_kept
from server.ports import Clock, OnKeptChange

_SWEEP_MS = 60_000


class MemoryKeptValues:
    """Implements `KeptValues` for one process; nothing outlives it."""

    def __init__(self, clock: Clock, limits: KeptLimits | None = None) -> None:
        self._clock = clock
        self._limits = limits or KeptLimits()
        self._values: dict[str, dict[str, KeptValue]] = defaultdict(dict)
        self._sizes: dict[str, int] = defaultdict(int)
        self._copies = KeptCopies()
        self._next_sweep_ms = 0

    def follow(self, kind: str, on_change: OnKeptChange) -> None:
        self._copies.follow(kind, on_change)

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def put(self, kind: str, values: Mapping[str, bytes], *, expires_at: float) -> None:
        self._limits.check(values)
        until_ms = int(expires_at * 1000)
        if until_ms <= self._now_ms():
            return
        known = self._values.get(kind, {})
        if not self._has_room(kind, known, values):
            self._drop_expired()
            known = self._values.get(kind, {})
            if not self._has_room(kind, known, values):
                raise too_many_kept(kind)
        for key, data in values.items():
            value = KeptValue(data, until_ms)
            self._remove(kind, key)
            self._values[kind][key] = value
            self._sizes[kind] += len(key) + len(data)
            self._copies.put(kind, key, value)

    async def get(self, kind: str, key: str) -> bytes | None:
        value = self._values.get(kind, {}).get(key)
        return None if value is None or value.until_ms <= self._now_ms() else value.data

    async def items(self, kind: str) -> dict[str, bytes]:
        now_ms = self._now_ms()
        known = self._values.get(kind, {}).items()
        return {key: value.data for key, value in known if value.until_ms > now_ms}

    async def delete(self, kind: str, key: str) -> bool:
        removed = self._remove(kind, key)
        self._copies.delete(kind, key)
        return removed is not None and removed.until_ms > self._now_ms()

    def sweep(self) -> None:
        now_ms = self._now_ms()
        self._copies.sweep(now_ms)
        if now_ms >= self._next_sweep_ms:
            self._next_sweep_ms = now_ms + _SWEEP_MS
            self._drop_expired()

    def _has_room(
        self, kind: str, known: Mapping[str, KeptValue], values: Mapping[str, bytes]
    ) -> bool:
        count = len(known) + sum(key not in known for key in values)
        added_bytes = sum(
            len(data) - len(known[key].data) if key in known else len(key) + len(data)
            for key, data in values.items()
        )
        limits = self._limits
        return count <= limits.max_values and (
            sum(self._sizes.values()) + added_bytes <= limits.total_bytes
            or self._sizes[kind] + added_bytes <= limits.reserve_bytes
        )

    def _drop_expired(self) -> None:
        now_ms = self._now_ms()
        for kind, known in list(self._values.items()):
            for key in [key for key, value in known.items() if value.until_ms <= now_ms]:
                self._remove(kind, key)

    def _remove(self, kind: str, key: str) -> KeptValue | None:
        known = self._values.get(kind)
        value = None if known is None else known.pop(key, None)
        if known is not None and value is not None:
            self._sizes[kind] -= len(key) + len(value.data)
            if not known:
                del self._values[kind]
        return value

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)
