"""Sends notices to all devices of a user; repeats critical ones until acknowledged."""

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
    """The id of a notice and the number of devices it was written to.

    `reached` is None if other nodes may deliver the notice: they do not report back. It is 0 for
    a repeated id.
    """

    id: str
    reached: int | None


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
    ) -> None:
        self.store = store
        self._message_bytes = message_bytes
        self._registry = registry
        self._hub = hub
        self._tickets = tickets
        self._clock = clock
        # The unacknowledged notices of each connection, by ack id.
        self._pending_acks: dict[str, dict[int, Notice]] = {}
        self._ack_ids = itertools.count(1)
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
        """Send a notice to a user; not an error if the user has no connection."""
        encoded = encode_within(data, self._message_bytes)
        ts_ms = int(self._clock.time() * 1000)
        notice = Notice(org, user_id, identifier or secrets.token_hex(8), event, ts_ms, encoded)
        self.posted += 1
        return NotifyResult(notice.id, await self.store.post(notice, critical=critical))

    def deliver(self, notice: Notice, critical: bool) -> int:
        """Write a notice to this node's devices of its user; returns how many."""
        user = (notice.org, notice.user_id)
        connection_ids = [
            record.connection_id
            for record in self._registry.connections_of(*user)
            if record.namespace == SESSION_NAMESPACE
        ]
        if critical:
            return sum(
                self._hub.send_with_ack(each, self._ack_request(each, notice))
                for each in connection_ids
            )
        head = event_head(SESSION_NAMESPACE, "notification", _body(notice, critical=False))
        # Parked connections receive it on resuming.
        parked_ids = self._tickets.parked_of(user)
        return sum(self._hub.send_to(each, head) for each in (*connection_ids, *parked_ids))

    def pending_frames(self, connection_id: str, org: str, user_id: str) -> bytes:
        """The frames of all unacknowledged notices, for a connection that joins or resumes."""
        return b"".join(
            self._ack_request(connection_id, notice) for notice in self.store.pending(org, user_id)
        )

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

    def _ack_request(self, connection_id: str, notice: Notice) -> bytes:
        """The frame of a critical notice: an EVENT packet with an ack id (Socket.IO protocol)."""
        ack_id = next(self._ack_ids)
        self._pending_acks.setdefault(connection_id, {})[ack_id] = notice
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
