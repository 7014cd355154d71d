"""Sends notices to all devices of a user; repeats critical ones until acknowledged."""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import orjson

from client_sdk.contract import SESSION_NAMESPACE
from server.core.connections import ConnectionManager
from server.core.errors import FloorcastError
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.notices import Notice
from server.core.wire.frames import text_frame
from server.core.wire.packets import event_head, event_packet
from server.delivery import Hub
from server.ports import Clock, NoticeStore
from server.services.sessions.encoding import encode_within
from server.services.sessions.notice_ids import NoticeIds


@dataclass(frozen=True, slots=True)
class NotifyResult:
    """The id of a notice and the number of devices it was written to.

    `reached` is None if other nodes may deliver the notice: they do not report back. It is 0 for
    a repeated id.
    """

    id: str
    reached: int | None


User = tuple[str, str]

_MAX_PENDING_ACKS = 1_000
# Users whose notices are read again at the same time, and in one sweep.
_BATCH_SIZE, _MAX_BATCHES = 256, 16


class PendingNotices:
    """The notices for one client that connects: those read for it, and those posted meanwhile."""

    __slots__ = ("_notices", "_on_close", "_on_failure", "_reading")

    def __init__(
        self, *, on_failure: Callable[[], object], on_close: Callable[["PendingNotices"], object]
    ) -> None:
        self._on_failure = on_failure
        self._on_close = on_close
        self._notices: dict[str, Notice] = {}
        self._reading: asyncio.Future[tuple[Notice, ...]] | None = None

    def start(
        self, read: Callable[[], tuple[Notice, ...] | asyncio.Future[tuple[Notice, ...]]]
    ) -> None:
        """Begin to read the notices."""
        try:
            found = read()
        except FloorcastError:
            self._on_failure()
            return
        if isinstance(found, asyncio.Future):
            self._reading = found
        else:
            self._put_first(found)

    async def wait(self) -> None:
        """Wait until they are read; without an answer the notices follow later."""
        if self._reading is not None:
            try:
                self._put_first(await self._reading)
            except FloorcastError:
                self._on_failure()

    def add(self, notice: Notice) -> None:
        """Add a notice that is posted now."""
        self._notices.setdefault(notice.id, notice)

    def all(self) -> Iterable[Notice]:
        """The notices, oldest first."""
        return self._notices.values()

    def close(self) -> None:
        """Add no more: the client has connected, or has failed to."""
        reading = self._reading
        if reading is not None and not reading.cancel() and not reading.cancelled():
            # Marks an error as seen, if the client has failed before it waited.
            reading.exception()
        self._on_close(self)

    def _put_first(self, notices: Iterable[Notice]) -> None:
        self._notices = {notice.id: notice for notice in notices} | self._notices


class Notifications:
    """Notices for the users of this node, and their acknowledgements."""

    def __init__(
        self,
        store: NoticeStore,
        registry: ConnectionManager,
        hub: Hub,
        tickets: ResumeTickets,
        clock: Clock,
        *,
        message_bytes: int,
        ids: NoticeIds | None = None,
    ) -> None:
        self.store = store
        self._ids = ids
        self._message_bytes = message_bytes
        self._registry = registry
        self._hub = hub
        self._tickets = tickets
        self._clock = clock
        # The unacknowledged notices of each connection, by ack id.
        self._pending_acks: dict[str, dict[int, Notice]] = {}
        self._ack_ids = itertools.count(1)
        # The clients of each user that are connecting.
        self._connecting: dict[User, set[PendingNotices]] = {}
        # Users on this node of whom the store may have notices that their devices lack.
        self._unread: dict[User, None] = {}
        self.posted = 0

    async def notify(
        self,
        org: str,
        user_id: str,
        event: str,
        data: Mapping[str, object],
        *,
        critical: bool = False,
        identifier: str | None = None,
    ) -> NotifyResult:
        """Send a notice to a user; not an error if the user has no connection.

        With an `identifier` a retry sends nothing. Raises `RequestError` if another notice had it.
        """
        encoded = encode_within(data, self._message_bytes)
        ts_ms = int(self._clock.time() * 1000)
        notice = Notice(org, user_id, identifier or secrets.token_hex(8), event, ts_ms, encoded)
        ids = None if identifier is None else self._ids
        if ids is not None and await ids.is_known(notice):
            return NotifyResult(notice.id, 0)
        self.posted += 1
        reached = await self.store.post(notice, critical=critical)
        if ids is not None:
            await ids.remember(notice)
        return NotifyResult(notice.id, reached)

    def deliver(self, notice: Notice, critical: bool) -> int:
        """Write a notice to this node's devices of its user; returns how many."""
        user = (notice.org, notice.user_id)
        connection_ids = [
            record.connection_id
            for record in self._registry.connections_of(*user)
            if record.namespace == SESSION_NAMESPACE
        ]
        if critical:
            for pending in self._connecting.get(user, ()):
                pending.add(notice)
            return sum(
                self._hub.send_with_ack(each, self._ack_request(each, notice))
                for each in connection_ids
                if not self._awaits_ack(each, notice)
            )
        head = event_head(SESSION_NAMESPACE, "notification", _body(notice, critical=False))
        # Parked connections receive it on resuming.
        parked_ids = self._tickets.parked_of(user)
        return sum(self._hub.send_to(each, head) for each in (*connection_ids, *parked_ids))

    def read_pending(self, user: User) -> PendingNotices:
        """Begin to read the unacknowledged notices of a user for a client that connects.

        You must close them once it has connected or failed to.
        """
        pending = PendingNotices(
            on_failure=partial(self._unread.setdefault, user),
            on_close=partial(self._close_pending, user),
        )
        self._connecting.setdefault(user, set()).add(pending)
        pending.start(partial(self.store.pending, *user))
        return pending

    def pending_frames(
        self, connection_id: str, pending: PendingNotices, *, resumed: bool
    ) -> bytes:
        """The frames of the notices for a connection that joins or resumes.

        A resumed one gets them again: they may have been lost with the connection before.
        """
        return b"".join(
            self._ack_request(connection_id, notice)
            for notice in pending.all()
            if resumed or not self._awaits_ack(connection_id, notice)
        )

    def mark_unread(self) -> None:
        """Read the notices of all users here again: the store was away and may have new ones."""
        self._unread |= {
            (record.org, record.user_id): None
            for record in self._registry.connections()
            if record.namespace == SESSION_NAMESPACE
        }

    async def sweep(self) -> None:
        """Send the notices that could not be read before."""
        for _ in range(_MAX_BATCHES):
            batch = list(itertools.islice(self._unread, _BATCH_SIZE))
            read = await asyncio.gather(*map(self._read_again, batch))
            if not batch or not all(read):
                return

    def acknowledge(self, connection_id: str, ack_id: int) -> bool:
        """Settle a notice for its user; returns False for an unknown ack id."""
        notice = self._pending_acks.get(connection_id, {}).pop(ack_id, None)
        if notice is None:
            return False
        self.store.acknowledge(notice)
        return True

    def forget(self, connection_id: str) -> None:
        """Drop the pending acknowledgements of a connection."""
        self._pending_acks.pop(connection_id, None)

    async def _read_again(self, user: User) -> bool:
        """Deliver what the store has of a user; False if it does not answer."""
        # Before the read: it may be marked again meanwhile.
        del self._unread[user]
        if not self._registry.devices_of(*user):
            return True
        try:
            notices = self.store.pending(*user)
            if isinstance(notices, asyncio.Future):
                notices = await notices
        except FloorcastError:
            self._unread[user] = None
            return False
        for notice in notices:
            self.deliver(notice, critical=True)
        return True

    def _close_pending(self, user: User, pending: PendingNotices) -> None:
        connecting = self._connecting[user]
        connecting.discard(pending)
        if not connecting:
            del self._connecting[user]

    def _awaits_ack(self, connection_id: str, notice: Notice) -> bool:
        """Whether a connection has got a notice that it has not acknowledged."""
        waiting = self._pending_acks.get(connection_id)
        return waiting is not None and any(each.id == notice.id for each in waiting.values())

    def _ack_request(self, connection_id: str, notice: Notice) -> bytes:
        """The frame of a critical notice: an EVENT packet with an ack id (Socket.IO protocol)."""
        ack_id = next(self._ack_ids)
        waiting = self._pending_acks.setdefault(connection_id, {})
        waiting[ack_id] = notice
        if len(waiting) > _MAX_PENDING_ACKS:
            # It is repeated on the next connection.
            del waiting[next(iter(waiting))]
        body = _body(notice, critical=True)
        return text_frame(event_packet(SESSION_NAMESPACE, "notification", body, ack_id=ack_id))


def _body(notice: Notice, *, critical: bool) -> bytes:
    return b'{"id":%b,"event":%b,"data":%b,"critical":%b,"ts":%d}' % (
        orjson.dumps(notice.id),
        orjson.dumps(notice.event),
        notice.data,
        b"true" if critical else b"false",
        notice.ts_ms,
    )
