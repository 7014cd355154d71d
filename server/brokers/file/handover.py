"""The handover of a single process to its next run: parked connections, saved on stopping."""

import secrets
from collections.abc import Callable, Collection

from server.brokers.file.database import Database
from server.brokers.file.schema import CONNECTIONS
from server.brokers.file.store import FileStore
from server.brokers.redis.recovery.codec import (
    SavedConnection,
    connection_key,
    decode_saved,
    encode,
)
from server.core.errors import FloorcastError
from server.core.recovery.connection_state import ConnectionState, ResumeRequest
from server.ports import Clock, ExportConnection


class FileHandover:
    """Implements `Handover`: a run's connections can be resumed in the next one."""

    def __init__(self, clock: Clock, store: FileStore, *, window_seconds: float) -> None:
        self._clock = clock
        self._store = store
        self._window_ms = int(window_seconds * 1000)
        self.node = secrets.token_hex(8)

    async def start(self, export: ExportConnection) -> None:
        await self._store.run(self._drop_expired)

    async def stop(
        self, export_all: Callable[[], Collection[tuple[ResumeRequest, ConnectionState]]]
    ) -> None:
        until_ms = self._now_ms() + self._window_ms
        for request, state in export_all():
            if request.offset is None:
                continue
            saved = encode(SavedConnection(1, request.offset, state))
            if saved is not None:
                self._store.add(CONNECTIONS, (connection_key(request), until_ms, saved))

    async def fetch(self, request: ResumeRequest) -> ConnectionState | None:
        key, now_ms = connection_key(request), self._now_ms()

        def take(database: Database) -> object:
            # One statement: nobody else can get it.
            row = database.connection.execute(
                "DELETE FROM connections WHERE key = ? AND until_ms > ? RETURNING body",
                (key, now_ms),
            ).fetchall()
            return row[0][0] if row else None

        try:
            saved = decode_saved(await self._store.read(take))
        except FloorcastError:
            return None
        return None if saved is None or saved.offset != request.offset else saved.luggage

    def forget(self, request: ResumeRequest) -> None:
        """No-op: `fetch` has deleted it."""

    def _drop_expired(self, database: Database) -> None:
        database.connection.execute(
            "DELETE FROM connections WHERE until_ms <= ?", (self._now_ms(),)
        )

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)
