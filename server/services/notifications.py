"""Notices for one user, on every device of theirs; a critical one until it is acknowledged."""

import itertools
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from client_sdk.contract import SESSION_NAMESPACE
from server.core.connections import ConnectionManager
from server.core.frames import text_frame
from server.core.notices import Notice, Notices
from server.core.packets import event_packet, open_event
from server.core.tickets import Tickets
from server.delivery import Fanout
from server.ports import Clock
from server.services.session_wire import encode_within


@dataclass(frozen=True, slots=True)
class NotificationsConfig:
    """How long a critical notice waits, and how many may."""

    keep_seconds: float = 24 * 3600.0
    max_per_user: int = 100
    max_total: int = 100_000
    message_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class Notified:
    """What became of a notice: its id, and how many devices it was written to."""

    id: str
    reached: int


class Notifications:
    """Writes notices, and hears which of them were acknowledged."""

    def __init__(
        self,
        config: NotificationsConfig,
        registry: ConnectionManager,
        fanout: Fanout,
        tickets: Tickets,
        clock: Clock,
    ) -> None:
        self._config = config
        self._registry = registry
        self._fanout = fanout
        self._tickets = tickets
        self._clock = clock
        self.notices = Notices(
            keep_seconds=config.keep_seconds,
            max_per_user=config.max_per_user,
            max_total=config.max_total,
        )
        # What each device was asked to acknowledge, by the number of its packet.
        self._asked: dict[str, dict[int, Notice]] = {}
        self._numbers = itertools.count(1)

    def notify(
        self,
        org: str,
        user_id: str,
        event: str,
        data: Mapping[str, object],
        *,
        critical: bool = False,
        identifier: str | None = None,
    ) -> Notified:
        """Tell a user; nobody there is no error, and reaches 0."""
        encoded = encode_within(data, self._config.message_bytes)
        ts_ms = int(self._clock.time() * 1000)
        notice = Notice(org, user_id, identifier or secrets.token_hex(8), event, ts_ms, encoded)
        if critical and not self.notices.put(notice, self._clock.monotonic()):
            # Sent before under this id: it waits, or it was settled.
            return Notified(notice.id, 0)
        connections = [
            record.connection_id
            for record in self._registry.connections_of(org, user_id)
            if record.namespace == SESSION_NAMESPACE
        ]
        if critical:
            reached = sum(
                self._fanout.ask_one(each, self._question(each, notice)) for each in connections
            )
            return Notified(notice.id, reached)
        told = open_event(SESSION_NAMESPACE, "notification", _body(notice, critical=False))
        # Who was cut off hears of it when it is back.
        away = self._tickets.parked_of((org, user_id))
        reached = sum(self._fanout.tell_one(each, told) for each in (*connections, *away))
        return Notified(notice.id, reached)

    def greet(self, connection_id: str, org: str, user_id: str) -> bytes:
        """What a device that has just come has yet to be told, as frames."""
        return b"".join(
            self._question(connection_id, notice)
            for notice in self.notices.waiting(org, user_id, self._clock.monotonic())
        )

    def acknowledged(self, connection_id: str, number: int) -> bool:
        """A device has a notice, which settles it for the user; False for what was not asked."""
        notice = self._asked.get(connection_id, {}).pop(number, None)
        if notice is None:
            return False
        now = self._clock.monotonic()
        self.notices.acknowledge(notice.org, notice.user_id, notice.id, now)
        return True

    def forget(self, connection_id: str) -> None:
        """The device has gone."""
        self._asked.pop(connection_id, None)

    def sweep(self) -> None:
        """Let go of what has waited for too long."""
        self.notices.expire(self._clock.monotonic())

    def _question(self, connection_id: str, notice: Notice) -> bytes:
        """A critical notice as a frame, which the device is asked to acknowledge."""
        number = next(self._numbers)
        self._asked.setdefault(connection_id, {})[number] = notice
        body = _body(notice, critical=True)
        return text_frame(event_packet(SESSION_NAMESPACE, "notification", body, identifier=number))


def _body(notice: Notice, *, critical: bool) -> bytes:
    return b'{"id":%b,"event":%b,"data":%b,"critical":%b,"ts":%d}' % (
        orjson.dumps(notice.id),
        orjson.dumps(notice.event),
        notice.data,
        b"true" if critical else b"false",
        notice.ts_ms,
    )
