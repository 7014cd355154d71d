"""Importing session connections of other nodes: all of what they missed, or nothing."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
import pytest_asyncio

from server.access import Principal
from server.brokers import MemoryNoticeStore, MemoryPresence
from server.core.connections import ConnectionManager
from server.core.log.entries import Position
from server.core.recovery.connection_state import ConnectionState, MembershipState
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.notices import Notices
from server.core.sessions.records import SessionKey, SessionRules
from server.delivery import DeliveryConfig
from server.services import (
    Notifications,
    ResumingClient,
    SessionMessages,
    SessionRecovery,
    SessionsConfig,
    SessionsService,
)
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import MarketRig

ANN = Principal("ann", "default", frozenset({"session:join"}), expires_at=1e12)
BOB = replace(ANN, user_id="bob")
KEY = ("default", "room")


class KnownEvents(MemoryPresence):
    """A manager that knows these events since any revision."""

    events: Sequence[SessionEvent] | None = ()

    async def events_since(self, key: SessionKey, revision: int) -> Sequence[SessionEvent] | None:
        return self.events


class Room:
    """One node on which Bob is in the room and has sent two messages."""

    def __init__(self, market: MarketRig) -> None:
        self.market = market
        self.tickets = ResumeTickets(window_seconds=60, max_parked=9, max_parked_per_owner=9)
        self.presence = KnownEvents(
            market.clock, SessionRules(grace_seconds=10, retention_seconds=100)
        )
        self.sessions = SessionsService(
            SessionsConfig(),
            market.broker,
            self.presence,
            market.node_subscriptions,
            market.hub,
            self.tickets,
        )
        messages = (market.broker, self.presence, market.hub, market.clock)
        self.messages = SessionMessages(
            self.sessions, *messages, message_bytes=4096, page_bytes=4096
        )
        notices = Notices(keep_seconds=60, max_per_user=9, max_total=9)
        notifications = Notifications(
            MemoryNoticeStore(market.clock, notices),
            ConnectionManager(),
            market.hub,
            self.tickets,
            market.clock,
            message_bytes=4096,
        )
        self.recovery = SessionRecovery(self.sessions, self.presence, notifications, market.hub)
        self.client = ResumingClient(ANN, RecordingLink(), "pid", "abcd-7")

    @staticmethod
    async def create() -> "Room":
        room = Room(await MarketRig.create(DeliveryConfig(recoverable=True)))
        await room.presence.start(room.sessions.local_presence.handle_event)
        room.sessions.add_connection("bob", RecordingLink())
        await room.sessions.join("bob", BOB, "room")
        for number in (1, 2):
            await room.messages.send("bob", BOB, "room", {"n": number}, None)
        room.market.settle()
        return room

    @property
    def state(self) -> ConnectionState:
        """Ann's connection, which has seen the first message."""
        [channel] = self.market.hub.channels()
        seen = Position(channel.state.position.epoch, 1)
        return ConnectionState("ann1", *ANN.user, sessions=(MembershipState("room", seen, 1),))

    async def bring(self, state: ConnectionState) -> list[tuple[str, object]] | None:
        """Import and resume; the events sent, None if the import failed."""
        if not await self.recovery.import_parked(self.client, state):
            return None
        assert self.recovery.resume("ann1", self.client, b"")
        self.market.settle()
        link = self.client.link
        assert isinstance(link, RecordingLink)
        return [(event, body) for event, body, _ in link.numbered_events(0)]


@pytest_asyncio.fixture
async def room() -> AsyncIterator[Room]:
    room = await Room.create()
    yield room
    for connection_id in ("ann1", "bob"):
        await room.sessions.remove_connection(connection_id, deliberate=True)
    assert room.market.hub.channels() == ()
    local_presence = room.sessions.local_presence
    assert (local_presence._parked, local_presence._ahead) == ({}, {})
    assert local_presence._joining == {}


def event(kind: SessionEventKind, revision: int, user_id: str) -> SessionEvent:
    return SessionEvent(KEY, kind, revision, 5, user_id, participant_count=2)


def summary(events: list[tuple[str, object]] | None) -> list[tuple[str, object]]:
    assert events is not None
    return [
        (name, body["user_id"] if name.startswith("user_") else body["data"])
        for name, body in events
        if isinstance(body, dict)
    ]


async def test_imported_member_gets_missed_pushes_events_and_messages(room: Room) -> None:
    room.presence.events = [
        event(SessionEventKind.JOINED, 2, "carl"),
        event(SessionEventKind.JOINED, 3, "ann"),
        event(SessionEventKind.BARRED, 4, "dora"),
        event(SessionEventKind.KICKED, 5, "carl"),
    ]
    push = '42/session,["notification",{"id":"n1","event":"fill","data":{},"critical":false,"ts":1}'
    events = await room.bring(replace(room.state, pushes=(push,), initial_session="room"))
    assert summary(events) == [
        ("notification", {}),
        ("user_joined", "carl"),
        ("user_left", "carl"),
        ("message", {"n": 2}),
    ]
    assert room.sessions.local_presence.initial_session("ann1") == "room"
    assert room.sessions.is_member("ann1", *KEY)


@pytest.mark.parametrize(
    "last",
    [
        event(SessionEventKind.CLOSED, 2, ""),
        event(SessionEventKind.EXPIRED, 2, ""),
        event(SessionEventKind.KICKED, 2, "ann"),
        event(SessionEventKind.BARRED, 2, "ann"),
        None,
    ],
)
async def test_ended_or_unknown_membership_is_not_imported(
    room: Room, last: SessionEvent | None
) -> None:
    room.presence.events = None if last is None else [last]
    assert await room.bring(room.state) is None


@pytest.mark.parametrize(
    "push",
    [
        "",
        "42/session,",
        '42/session,["notification"',
        '42/session,["notification",{}]',
        '42/session,["notification",{},"tag-1"',
        '42/session,["notification","x"',
        "42/session,[7,{}",
        '42/market,["price",{}',
        "2",
        '42/session,["a",{}]42/session,["b",{}',
    ],
)
async def test_malformed_push_is_not_imported(room: Room, push: str) -> None:
    assert await room.bring(replace(room.state, pushes=(push,))) is None


async def test_malformed_session_is_not_imported(room: Room) -> None:
    [membership] = room.state.sessions
    for sessions in (
        (replace(membership, session_id="a b"),),
        (membership, membership),
        (replace(membership, position=Position("other", 1)),),
        (replace(membership, position=replace(membership.position, seq=3)),),
        (replace(membership, position=replace(membership.position, seq=-1)),),
    ):
        assert await room.bring(replace(room.state, sessions=sessions)) is None


@pytest.mark.parametrize("is_closed", [True, False])
async def test_member_ahead_of_this_node_leaves_nothing(room: Room, is_closed: bool) -> None:
    [membership] = room.state.sessions
    ahead = replace(room.state, sessions=(replace(membership, revision=9),))
    assert await room.recovery.import_parked(room.client, ahead)
    local_presence = room.sessions.local_presence
    assert local_presence._ahead == {KEY: {"ann1": 9}}
    if is_closed:
        local_presence.handle_event(event(SessionEventKind.CLOSED, 10, ""))
    else:
        local_presence.remove("ann1", KEY)
    assert local_presence._ahead == {}


async def test_import_never_replaces_a_connection(room: Room) -> None:
    assert await room.bring(replace(room.state, connection_id="bob")) is None
    assert room.sessions.is_member("bob", *KEY)
