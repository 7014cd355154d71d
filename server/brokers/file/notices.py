"""The notice store of a single process; critical notices outlive it."""

from collections.abc import Sequence

import orjson

from server.brokers.file.database import Database
from server.brokers.file.schema import DROP_NOTICES, NOTICES
from server.brokers.file.store import FileStore
from server.brokers.memory.notices import MemoryNoticeStore
from server.brokers.redis.notices.codec import decode_notice, encode_notice
from server.core.sessions.notices import Notice, Notices
from server.ports import Clock, OnNotice

_ACKNOWLEDGED = "seen"


class FileNoticeStore:
    """Implements `NoticeStore` for one process; `post` delivers before it returns."""

    def __init__(
        self, clock: Clock, store: FileStore, notices: Notices, *, keep_seconds: float
    ) -> None:
        self._clock = clock
        self._store = store
        self._notices = notices
        self._keep_seconds = keep_seconds
        self._memory = MemoryNoticeStore(clock, notices)
        # Being written.
        self._posting: set[bytes] = set()

    async def start(self, on_notice: OnNotice) -> None:
        await self._store.run(self._restore)
        await self._memory.start(on_notice)

    async def stop(self) -> None:
        await self._memory.stop()

    @property
    def dropped_count(self) -> int:
        return self._memory.dropped_count

    async def post(self, notice: Notice, *, critical: bool) -> int | None:
        if not critical:
            return await self._memory.post(notice, critical=False)
        key = _key_of(notice)
        while key in self._posting:
            await self._store.commit()
        if self._notices.is_known(notice, self._clock.monotonic()):
            return 0
        self._store.check_room()
        self._posting.add(key)
        try:
            self._write(notice, "")
            await self._store.commit()
        finally:
            self._posting.discard(key)
        return await self._memory.post(notice, critical=True)

    def pending(self, org: str, user_id: str) -> tuple[Notice, ...]:
        return self._memory.pending(org, user_id)

    def acknowledge(self, notice: Notice) -> None:
        self._memory.acknowledge(notice)
        # Without a wait: an acknowledgement that is lost only repeats the notice.
        self._write(notice, _ACKNOWLEDGED)

    def sweep(self) -> Sequence[Notice]:
        # Evicted ones too. A failing write keeps them until their time is over.
        for (org, user_id), notice_id in self._notices.sweep(self._clock.monotonic()):
            self._store.add(DROP_NOTICES, (orjson.dumps([org, user_id, notice_id]),))
        return self._notices.pop_expired()

    def _write(self, notice: Notice, status: str) -> None:
        until_ms = int((self._clock.time() + self._keep_seconds) * 1000)
        body = encode_notice(notice, True, until_ms, status)
        self._store.add(NOTICES, (_key_of(notice), until_ms, body))

    def _restore(self, database: Database) -> None:
        database.read("SELECT body FROM notices ORDER BY until_ms", self._restore_notice)

    def _restore_notice(self, body: bytes) -> None:
        decoded = decode_notice(body)
        if decoded is None:
            return
        status, notice, until_ms = decoded
        now = self._clock.monotonic()
        expires_at = now + until_ms / 1000 - self._clock.time()
        self._notices.put(notice, now, expires_at=expires_at)
        if status == _ACKNOWLEDGED:
            self._notices.acknowledge(notice.org, notice.user_id, notice.id, now)


def _key_of(notice: Notice) -> bytes:
    return orjson.dumps([notice.org, notice.user_id, notice.id])
