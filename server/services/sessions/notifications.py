"""Notices for one user, on every device of theirs; a critical one until it is acknowledged."""

import itertools
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from client_sdk.contract import SESSION_NAMESPACE
from server.core.connections import ConnectionManager
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.notices import Notice
from server.core.wire.frames import text_frame
from server.core.wire.packets import event_head, event_packet
from server.delivery import Hub
from server.ports import Clock, NoticeStore
from server.services.sessions.encoding import encode_within


@dataclass(frozen=True, slots=True)
class NotifyResult:
    """What became of a notice: its id, and how many devices it was written to.

    None where there may be other nodes: it reaches them in a moment, and nobody counts there. 0
    where it was sent before under this id, and waits or was settled.
    """

    id: str
    reached: int | None


class Notifications:
    """Writes notices, and hears which of them were acknowledged."""

    def __init__(
        self,
        store: NoticeStore,
        registry: ConnectionManager,
        hub: Hub,
        tickets: ResumeTickets,
        clock: Clock,
        *,
        message_bytes: int,
    ) -> None:
        self.store = store
        self._message_bytes = message_bytes
        self._registry = registry
        self._hub = hub
        self._tickets = tickets
        self._clock = clock
        # What each device was asked to acknowledge, by the number of its packet.
        self._pending_acks: dict[str, dict[int, Notice]] = {}
        self._ack_ids = itertools.count(1)

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
        """Tell a user; nobody there is no error."""
        encoded = encode_within(data, self._message_bytes)
        ts_ms = int(self._clock.time() * 1000)
        notice = Notice(org, user_id, identifier or secrets.token_hex(8), event, ts_ms, encoded)
        return NotifyResult(notice.id, await self.store.post(notice, critical=critical))

    def deliver(self, notice: Notice, critical: bool) -> int:
        """Tell the devices of this node; how many heard."""
        user = (notice.org, notice.user_id)
        connections = [
            record.connection_id
            for record in self._registry.connections_of(*user)
            if record.namespace == SESSION_NAMESPACE
        ]
        if critical:
            return sum(
                self._hub.send_with_ack(each, self._ack_request(each, notice))
                for each in connections
            )
        told = event_head(SESSION_NAMESPACE, "notification", _body(notice, critical=False))
        # Who was cut off hears of it when it is back.
        away = self._tickets.parked_of(user)
        return sum(self._hub.send_to(each, told) for each in (*connections, *away))

    def pending_frames(self, connection_id: str, org: str, user_id: str) -> bytes:
        """What a device that has just come has yet to be told, as frames."""
        return b"".join(
            self._ack_request(connection_id, notice) for notice in self.store.pending(org, user_id)
        )

    def acknowledge(self, connection_id: str, ack_id: int) -> bool:
        """A device has a notice, which settles it for the user; False for what was not asked."""
        notice = self._pending_acks.get(connection_id, {}).pop(ack_id, None)
        if notice is None:
            return False
        self.store.acknowledge(notice)
        return True

    def forget(self, connection_id: str) -> None:
        """The device has gone."""
        self._pending_acks.pop(connection_id, None)

    def _ack_request(self, connection_id: str, notice: Notice) -> bytes:
        """A critical notice as a frame, which the device is asked to acknowledge."""
        number = next(self._ack_ids)
        self._pending_acks.setdefault(connection_id, {})[number] = notice
        body = _body(notice, critical=True)
        return text_frame(event_packet(SESSION_NAMESPACE, "notification", body, ack_id=number))


def _body(notice: Notice, *, critical: bool) -> bytes:
    return b'{"id":%b,"event":%b,"data":%b,"critical":%b,"ts":%d}' % (
        orjson.dumps(notice.id),
        orjson.dumps(notice.event),
        notice.data,
        b"true" if critical else b"false",
        notice.ts_ms,
    )
