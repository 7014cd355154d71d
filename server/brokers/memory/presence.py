"""An assembly inside the process: who is in which session, gone when the process is."""

from collections.abc import Callable, Collection, Mapping

from server.core.errors import FloorcastError
from server.core.sessions.events import Happening, News
from server.core.sessions.participants import Gathering
from server.core.sessions.records import (
    Left,
    SessionKey,
    SessionRecord,
    SessionRules,
    not_in_session,
)
from server.core.sessions.registry import Sessions
from server.ports import Clock, unheard


class MemoryAssembly:
    """Fills the `Assembly` port for one process; what happens is heard before a call returns."""

    def __init__(self, clock: Clock, rules: SessionRules) -> None:
        self._clock = clock
        self._hear: Callable[[News], None] = unheard
        self.sessions = Sessions(rules)

    async def start(self, hear: Callable[[News], None]) -> None:
        self._hear = hear

    async def stop(self) -> None:
        self._hear = unheard

    @property
    def session_count(self) -> int:
        return len(self.sessions)

    async def join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None = None,
    ) -> Gathering:
        return _gathering(self._join(connection_id, user_id, key, metadata))

    async def leave(self, connection_id: str, key: SessionKey) -> None:
        self.depart(connection_id, key, lost=False)

    def depart(self, connection_id: str, key: SessionKey, *, lost: bool) -> None:
        go = self.sessions.lose if lost else self.sessions.leave
        left = go(connection_id, *key, self._clock.monotonic())
        if left is not None:
            self._tell_left(left)

    def admits(self, user_id: str, key: SessionKey) -> bool:
        try:
            self.sessions.open(*key).presence.admit(user_id)
        except FloorcastError:
            return False
        return True

    def rejoin(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        if self.admits(user_id, key):
            self._join(connection_id, user_id, key, None)
        else:
            refused = News(
                key, Happening.REFUSED, 0, self._now_ms(), user_id, connection_id=connection_id
            )
            self._hear(refused)

    async def kick(self, key: SessionKey, user_id: str) -> int:
        left = self.sessions.kick(*key, user_id, self._clock.monotonic())
        if left is None:
            record = self.sessions.open(*key)
            self._tell(record, Happening.BARRED, user_id, record.presence.participant_count)
            raise not_in_session()
        departure = left.departure
        self._tell(left.record, Happening.KICKED, user_id, departure.participant_count)
        return len(departure.connections)

    async def close(self, key: SessionKey) -> int:
        connections = self.sessions.close(*key, self._clock.monotonic())
        self._tell(self.sessions.get(*key), Happening.CLOSED)
        return len(connections)

    async def who(self, key: SessionKey) -> Gathering | None:
        record = self.sessions.get(*key)
        return None if record is None else _gathering(record)

    async def signal(self, key: SessionKey, connection_id: str, user_id: str, data: bytes) -> None:
        self._hear(
            News(
                key,
                Happening.SIGNAL,
                0,
                self._now_ms(),
                user_id,
                connection_id=connection_id,
                data=data,
            )
        )

    async def sweep(self) -> Collection[SessionKey]:
        now = self._clock.monotonic()
        for left in self.sessions.departed(now):
            self._tell_left(left)
        over = self.sessions.due(now)
        for record in over:
            self._tell(record, Happening.OVER)
        return [record.key for record in over]

    def _join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None,
    ) -> SessionRecord:
        org, session_id = key
        joined = self.sessions.join(
            connection_id, org, user_id, session_id, self._now_ms(), metadata
        )
        arrival = joined.arrival
        if arrival.announce:
            self._tell(joined.record, Happening.JOINED, user_id, arrival.participant_count)
        return joined.record

    def _tell_left(self, left: Left) -> None:
        departure = left.departure
        if departure.announce:
            self._tell(left.record, Happening.LEFT, departure.user_id, departure.participant_count)

    def _tell(
        self, record: SessionRecord | None, what: Happening, user_id: str = "", count: int = 0
    ) -> None:
        assert record is not None
        record.revision += 1
        self._hear(News(record.key, what, record.revision, self._now_ms(), user_id, count))

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)


def _gathering(record: SessionRecord) -> Gathering:
    return Gathering(record.revision, record.presence.members(), record.closed, record.metadata)
