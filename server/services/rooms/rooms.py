"""Keeps which connections are in which rooms, and broadcasts to rooms on all nodes."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError, LimitError, RequestError
from server.core.limits.shares import Owner
from server.core.log.entries import Position
from server.core.wire.packets import MAX_EVENT_NAME, event_head, is_event_name
from server.core.wire.strict_json import dumps
from server.delivery import Hub
from server.delivery.channel import Channel
from server.ports import Broker, Clock, Link
from server.services.node_subscriptions import NodeSubscriptions, release_each
from server.services.rooms.state import RoomState, encode_broadcast

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}")
# The events of every namespace; an application must not seem to send them.
_CONTROL_EVENTS = frozenset(
    ("error", "goodbye", "reconnect_hint", "refresh_token", "token_expiring", "welcome")
)


@dataclass(frozen=True, slots=True)
class RoomsConfig:
    """Limits of rooms on one node; 0 rooms means no limit."""

    max_rooms: int = 200
    message_bytes: int = 64 * 1024
    backlog_messages: int = 1000
    backlog_bytes: int = 1024 * 1024
    backlog_age_ms: int = 300_000


@dataclass(frozen=True, slots=True)
class _Member:
    org: str
    rooms: dict[str, None] = field(default_factory=dict)


class Rooms:
    """The rooms of one namespace. A room belongs to an org: no other org can reach it."""

    def __init__(
        self,
        namespace: str,
        config: RoomsConfig,
        broker: Broker,
        node_subscriptions: NodeSubscriptions,
        hub: Hub,
        clock: Clock,
    ) -> None:
        self.namespace = namespace
        self._config = config
        self._broker = broker
        self._node_subscriptions = node_subscriptions
        self._hub = hub
        self._clock = clock
        self._members: dict[str, _Member] = {}

    def __contains__(self, connection_id: object) -> bool:
        """Whether this connection is known here, parked or not."""
        return connection_id in self._members

    def add_connection(self, connection_id: str, org: str, link: Link, *, numbered: bool) -> None:
        """Register a connection; if `numbered`, its events carry offsets for recovery."""
        self._members[connection_id] = _Member(org)
        self._hub.attach(connection_id, link, numbered=numbered)

    def add_parked(self, connection_id: str, org: str, rooms: Mapping[str, None]) -> None:
        """Register a connection that the hub has parked in these rooms."""
        self._members[connection_id] = _Member(org, dict(rooms))

    def rooms_of(self, connection_id: str) -> tuple[str, ...]:
        """The rooms of a connection, parked or not; none if it is unknown."""
        member = self._members.get(connection_id)
        return () if member is None else tuple(member.rooms)

    async def remove_connection(self, connection_id: str) -> None:
        """Remove a connection from its rooms; no-op if it is unknown."""
        self._members.pop(connection_id, None)
        await release_each(self._hub.detach(connection_id), self._close)

    def export_connection(self, connection_id: str) -> tuple[str, ...]:
        """Remove a connection that goes on at another node; the channels that may be idle now."""
        del self._members[connection_id]
        return self._hub.detach(connection_id)

    async def enter(self, connection_id: str, room: str) -> None:
        """Let a connection receive the broadcasts of a room; no-op if it does already.

        Raises `LimitError` if it is in too many rooms, `RequestError` if it has ended.
        """
        member = self._members.get(connection_id)
        if member is None:
            raise _ended()
        if room in member.rooms:
            return
        name = self.channel_name(member.org, room)
        if 0 < self._config.max_rooms <= len(member.rooms):
            raise LimitError(
                ErrorCode.LIMIT_TOPICS,
                f"a connection may be in at most {self._config.max_rooms} rooms",
                details={"limit": self._config.max_rooms},
            )
        try:
            with self._node_subscriptions.hold(name):
                channel = await self.open(name)
                # No await from here on: later broadcasts follow.
                if connection_id not in self._hub:
                    raise _ended()
                if room not in member.rooms:
                    member.rooms[room] = None
                    self._hub.subscribe(connection_id, channel, 0)
        except BaseException:
            await self._close(name)
            raise

    async def leave(self, connection_id: str, room: str) -> None:
        """Take a connection out of a room; no-op if it is not in it."""
        member = self._members.get(connection_id)
        if member is None or room not in member.rooms:
            return
        del member.rooms[room]
        name = self.channel_name(member.org, room)
        channel = self._hub.channel(name)
        if channel is not None:
            self._hub.flush_channel(channel)
            self._hub.unsubscribe(connection_id, channel)
            await self._close(name)

    async def expel(self, connection_id: str, room: str, error: FloorcastError) -> None:
        """Take a connection out of a room and tell it why; no-op if it is not in it."""
        if room not in self.rooms_of(connection_id):
            return
        # After the broadcasts until now, and before the release, which awaits the broker.
        channel = self._hub.channel(self.channel_name(self._members[connection_id].org, room))
        if channel is not None:
            self._hub.flush_channel(channel)
        self._hub.send_to(connection_id, event_head(self.namespace, "error", dumps(error.body())))
        await self.leave(connection_id, room)

    async def broadcast(
        self, org: str, room: str, event: str, body: Mapping[str, object]
    ) -> Position:
        """Send an event to all connections in a room, on all nodes; returns its position.

        Connections that are parked get it when they resume. Raises `LimitError` if it is too
        large, and `ValueError` for a name that clients cannot receive.
        """
        data = encode_broadcast(dumps([_checked(event), dict(body)]))
        if len(data) > self._config.message_bytes:
            raise LimitError(
                ErrorCode.LIMIT_PAYLOAD,
                f"an event may have at most {self._config.message_bytes} bytes",
                details={"limit": self._config.message_bytes},
            )
        ts_ms = int(self._clock.time() * 1000)
        name = self.channel_name(org, room)
        # It counts to the org's share of all histories, as a session's messages do.
        receipt = await self._broker.publish(
            name, data, ts_ms, in_history=True, owner=Owner(org, name)
        )
        return receipt.position

    def send_to(self, connection_id: str, event: str, body: Mapping[str, object]) -> bool:
        """Send an event to one connection of this node; False if it is not sent now.

        A parked connection gets it when it resumes. Raises `ValueError` as `broadcast` does.
        """
        encoded = event_head(self.namespace, _checked(event), dumps(dict(body)))
        return self._hub.send_to(connection_id, encoded)

    def channel_name(self, org: str, room: str) -> str:
        """The broker's key of a room; raises `RequestError` for an invalid name."""
        if not _NAME.fullmatch(room):
            raise RequestError(
                ErrorCode.REQUEST_INVALID,
                "a room has 1 to 128 letters, digits or _.:/- and starts with a letter or digit",
            )
        # The lengths keep namespaces and orgs apart whatever their names contain.
        return f"room@{len(self.namespace)}:{self.namespace}:{len(org)}:{org}:{room}"

    async def open(self, name: str, seen: Position | None = None) -> Channel:
        """Receive a room's channel, at least up to a position; `release` it afterwards."""
        channel, _ = await self._node_subscriptions.subscribe(
            name, lambda head, latest: self._create_state(head), seen
        )
        return channel

    def hold(self, name: str) -> AbstractContextManager[None]:
        """Keep a channel open inside the context, even without connections in the room."""
        return self._node_subscriptions.hold(name)

    async def release(self, name: str) -> None:
        """Stop receiving a channel, unless connections of this node are in the room."""
        await self._node_subscriptions.release(name)

    async def _close(self, name: str) -> None:
        """Stop receiving a channel that nobody needs here, and forget its log if it is the last."""
        closed: list[str] = []
        await self._node_subscriptions.release(name, closed.append)
        for each in closed:
            # A no-op while another node watches it. Names of rooms must not pile up.
            with suppress(FloorcastError):
                # While the broker is down, the log is left to expire.
                await self._broker.forget(each)

    def _create_state(self, head: Position) -> RoomState:
        return RoomState(
            self.namespace,
            head,
            max_messages=self._config.backlog_messages,
            max_bytes=self._config.backlog_bytes,
            max_age_ms=self._config.backlog_age_ms,
        )


def check_event(event: str) -> None:
    """Raise `ValueError` for an event name that the protocol reserves or refuses."""
    if event in _CONTROL_EVENTS or not is_event_name(event):
        raise ValueError(
            f"{event!r} cannot be an event: it needs 1 to {MAX_EVENT_NAME} characters, "
            "and must not be reserved"
        )


def _checked(event: str) -> str:
    check_event(event)
    return event


def _ended() -> RequestError:
    return RequestError(ErrorCode.REQUEST_INVALID, "the connection has ended")
