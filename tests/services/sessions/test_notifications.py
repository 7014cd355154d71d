"""Notices at a connect: read once, while more are posted, and later if the store is away."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from client_sdk.contract import ErrorCode
from server.brokers import MemoryNoticeStore
from server.core.connections import ConnectionManager, ConnectionRecord
from server.core.errors import FloorcastError
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.notices import Notice, Notices
from server.core.wire.frames import split_text_frames
from server.services import Notifications
from tests.kit.network.links import RecordingLink, event_of
from tests.kit.rigs.market import MarketRig

ANN = ("acme", "ann")


class SlowStore(MemoryNoticeStore):
    """A store whose reads a test holds, or lets fail."""

    def __init__(self, market: MarketRig) -> None:
        notices = Notices(keep_seconds=60, max_per_user=10, max_total=10)
        super().__init__(market.clock, notices)
        self.failing = False
        self.held: asyncio.Event | None = None

    def pending(self, org: str, user_id: str) -> Any:
        if self.held is not None:
            return asyncio.ensure_future(self._slowly(org, user_id))
        return self._read(org, user_id)

    async def _slowly(self, org: str, user_id: str) -> tuple[Notice, ...]:
        assert self.held is not None
        found = self._read(org, user_id)
        await self.held.wait()
        return found

    def _read(self, org: str, user_id: str) -> tuple[Notice, ...]:
        if self.failing:
            raise FloorcastError(ErrorCode.SERVER_OVERLOADED, "the store is away")
        return super().pending(org, user_id)

    async def keep(self, identifier: str) -> None:
        """Keep a notice without notifying this node."""
        self._notices.put(_notice(identifier), self._clock.monotonic())


def _notice(identifier: str) -> Notice:
    return Notice(*ANN, identifier, "fill", 1, b"{}")


class Rig:
    """Notifications, and the connections of one user."""

    def __init__(self, market: MarketRig) -> None:
        self.market = market
        self.store = SlowStore(market)
        self.registry = ConnectionManager()
        tickets = ResumeTickets(window_seconds=60, max_parked=10, max_parked_per_owner=10)
        self.notifications = Notifications(
            self.store, self.registry, market.hub, tickets, market.clock, message_bytes=4096
        )

    @staticmethod
    async def create() -> "Rig":
        rig = Rig(await MarketRig.create())
        await rig.store.start(rig.notifications.deliver)
        return rig

    def join(self, name: str) -> RecordingLink:
        """Register a connection as a joined client."""
        link = self.market.link()
        self.registry.add(
            ConnectionRecord(
                connection_id=name,
                user_id=ANN[1],
                org=ANN[0],
                namespace="/session",
                device_id=name,
                ip="192.0.2.1",
                connected_at=datetime.fromtimestamp(1, UTC),
                expires_at=2e9,
                session_id=None,
            )
        )
        self.market.hub.attach(name, link)
        return link

    async def post(self, identifier: str) -> None:
        await self.store.post(_notice(identifier), critical=True)


@pytest.fixture
async def rig() -> Rig:
    return await Rig.create()


def ids(frames: bytes) -> list[str]:
    """The ids of the notices in these frames."""
    return [event_of(payload)[1]["id"] for payload in split_text_frames(frames)]


def received(link: RecordingLink) -> list[str]:
    return [body["id"] for body in link.messages("notification")]


async def test_notice_posted_during_the_read_comes_once_after_those_read(rig: Rig) -> None:
    await rig.post("1")
    rig.store.held = asyncio.Event()
    pending = rig.notifications.read_pending(ANN)
    await asyncio.sleep(0)
    await rig.post("2")
    rig.store.held.set()
    await pending.wait()
    # The client joins a session, which takes a while: it gets this one at once.
    link = rig.join("c1")
    await rig.post("3")
    assert received(link) == ["3"]
    assert ids(rig.notifications.pending_frames("c1", pending, resumed=False)) == ["1", "2"]
    pending.close()
    await rig.post("4")
    assert received(link) == ["3", "4"]
    assert [each.id for each in pending.all()] == ["1", "2", "3"]


async def test_resumed_connection_gets_unacknowledged_notices_again(rig: Rig) -> None:
    link = rig.join("c1")
    await rig.post("1")
    assert received(link) == ["1"]
    pending = rig.notifications.read_pending(ANN)
    assert ids(rig.notifications.pending_frames("c1", pending, resumed=True)) == ["1"]
    assert ids(rig.notifications.pending_frames("c1", pending, resumed=False)) == []
    pending.close()


@pytest.mark.parametrize("slow", [False, True])
async def test_client_of_a_store_that_is_away_gets_its_notices_later(rig: Rig, slow: bool) -> None:
    await rig.store.keep("1")
    rig.store.failing = True
    if slow:
        rig.store.held = asyncio.Event()
        rig.store.held.set()
    pending = rig.notifications.read_pending(ANN)
    await pending.wait()
    link = rig.join("c1")
    assert rig.notifications.pending_frames("c1", pending, resumed=False) == b""
    pending.close()
    await rig.notifications.sweep()
    assert received(link) == []
    rig.store.failing = False
    for _ in range(2):
        await rig.notifications.sweep()
    assert received(link) == ["1"]


async def test_all_users_here_are_read_again_after_the_store_was_away(rig: Rig) -> None:
    first, second = rig.join("c1"), rig.join("c2")
    await rig.post("1")
    await rig.store.keep("2")
    await rig.notifications.sweep()
    assert received(first) == ["1"]
    rig.notifications.mark_unread()
    for _ in range(2):
        await rig.notifications.sweep()
    assert received(first) == received(second) == ["1", "2"]


async def test_connection_that_never_acknowledges_costs_bounded_memory(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.services.sessions.notifications._MAX_PENDING_ACKS", 3)
    link = rig.join("c1")
    for number in range(5):
        await rig.post(str(number))
    assert received(link) == list("01234")
    acknowledged = [rig.notifications.acknowledge("c1", ack_id) for ack_id in range(1, 6)]
    assert acknowledged == [False, False, True, True, True]
