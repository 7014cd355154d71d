"""The kept values of a single process, in its data file."""

from collections.abc import Collection, Mapping

import orjson

from server.brokers.file.schema import KEPT
from server.brokers.file.store import FileStore
from server.core.kept import KeptCopies, KeptLimits, KeptValue, too_many_kept
from server.ports import Clock, OnKeptChange

_MAX_COUNTS = 10_000


class FileKeptValues:
    """Implements `KeptValues` for one process; only followed kinds are in memory too."""

    def __init__(self, clock: Clock, store: FileStore, limits: KeptLimits | None = None) -> None:
        self._clock = clock
        self._store = store
        self._limits = limits or KeptLimits()
        self._copies = KeptCopies()
        # At most so many values has each kind that was put to; it is counted anew at the limit.
        self._counts: dict[str, int] = {}

    def follow(self, kind: str, on_change: OnKeptChange) -> None:
        self._copies.follow(kind, on_change)

    async def start(self) -> None:
        self._copies.clear()
        for kind in self._copies.kinds:
            self._copies.replace(kind, await self._read(kind))

    async def stop(self) -> None:
        self._copies.clear()

    async def put(self, kind: str, values: Mapping[str, bytes], *, expires_at: float) -> None:
        self._limits.check(values)
        self._store.check_room()
        until_ms = int(expires_at * 1000)
        if until_ms <= self._now_ms():
            return
        await self._check_count(kind, values)
        await self._write(kind, {key: KeptValue(data, until_ms) for key, data in values.items()})

    async def get(self, kind: str, key: str) -> bytes | None:
        now_ms = self._now_ms()
        rows = await self._store.read(
            lambda database: database.connection.execute(
                "SELECT value FROM kept WHERE kind = ? AND key = ? AND until_ms > ?",
                (kind, key, now_ms),
            ).fetchall()
        )
        return rows[0][0] if rows else None

    async def items(self, kind: str) -> dict[str, bytes]:
        return {key: value.data for key, value in (await self._read(kind)).items()}

    async def delete(self, kind: str, key: str) -> bool:
        self._store.check_room()
        existed = await self.get(kind, key) is not None
        # A row whose time is over, and not a deletion: the order of the writes stays.
        await self._write(kind, {key: None})
        return existed

    def sweep(self) -> None:
        self._copies.sweep(self._now_ms())

    async def _check_count(self, kind: str, keys: Collection[str]) -> None:
        count, max_values = self._counts.get(kind), self._limits.max_values
        if count is None or count + len(keys) > max_values:
            values = (kind, self._now_ms(), orjson.dumps([*keys]).decode())
            [(count,)] = await self._store.read(
                lambda database: database.connection.execute(
                    "SELECT count(*) FROM kept WHERE kind = ? AND until_ms > ?"
                    " AND key NOT IN (SELECT value FROM json_each(?))",
                    values,
                ).fetchall()
            )
            if count + len(keys) > max_values:
                raise too_many_kept(kind)
        if len(self._counts) >= _MAX_COUNTS:
            self._counts.clear()
        self._counts[kind] = count + len(keys)

    async def _write(self, kind: str, values: Mapping[str, KeptValue | None]) -> None:
        for key, value in values.items():
            data, until_ms = (b"", 0) if value is None else (value.data, value.until_ms)
            self._store.add(KEPT, (kind, key, until_ms, data))
        await self._store.commit()
        for key, value in values.items():
            if value is None:
                self._copies.delete(kind, key)
            else:
                self._copies.put(kind, key, value)

    async def _read(self, kind: str) -> dict[str, KeptValue]:
        now_ms = self._now_ms()
        rows = await self._store.read(
            lambda database: database.connection.execute(
                "SELECT key, value, until_ms FROM kept WHERE kind = ? AND until_ms > ?",
                (kind, now_ms),
            ).fetchall()
        )
        return {key: KeptValue(data, until_ms) for key, data, until_ms in rows}

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)
