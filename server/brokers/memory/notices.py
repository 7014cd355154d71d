"""The notice store of a single process, in memory."""

from collections.abc import Sequence

from server.core.sessions.notices import Notice, Notices
from server.ports import Clock, OnNotice


class MemoryNoticeStore:
    """Implements `NoticeStore` for one process; `post` delivers before it returns."""

    def __init__(self, clock: Clock, notices: Notices) -> None:
        self._clock = clock
        self._notices = notices
        self._on_notice: OnNotice = lambda notice, critical: 0

    async def start(self, on_notice: OnNotice) -> None:
        self._on_notice = on_notice

    async def stop(self) -> None:
        self._on_notice = lambda notice, critical: 0

    @property
    def dropped_count(self) -> int:
        return self._notices.dropped_count

    async def post(self, notice: Notice, *, critical: bool) -> int | None:
        if critical and not self._notices.put(notice, self._clock.monotonic()):
            return 0
        return self._on_notice(notice, critical)

    def pending(self, org: str, user_id: str) -> tuple[Notice, ...]:
        return self._notices.pending(org, user_id, self._clock.monotonic())

    def acknowledge(self, notice: Notice) -> None:
        now = self._clock.monotonic()
        self._notices.acknowledge(notice.org, notice.user_id, notice.id, now)

    def sweep(self) -> Sequence[Notice]:
        self._notices.sweep(self._clock.monotonic())
        return self._notices.pop_expired()
