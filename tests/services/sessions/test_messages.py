"""Session messages without sockets: a slow member gets every message or is disconnected."""

from unittest.mock import AsyncMock

import pytest
from orjson import dumps, loads

from server.access import Principal
from server.brokers import MemoryPresence
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.records import SessionRules, session_channel
from server.delivery import DeliveryConfig
from server.services import SessionMessages, SessionsConfig, SessionsService
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import MarketRig


def member(user: str) -> Principal:
    return Principal(user, "default", frozenset({"session:join", "session:moderate"}), 1e12)


class Room:
    """One session on a market whose links have small buffers."""

    def __init__(self, market: MarketRig) -> None:
        self.market = market
        rules = SessionRules(grace_seconds=10.0, retention_seconds=60.0)
        presence = MemoryPresence(market.clock, rules)
        tickets = ResumeTickets(window_seconds=60.0, max_parked=10, max_parked_per_owner=10)
        self.sessions = SessionsService(
            SessionsConfig(backlog_messages=20),
            market.broker,
            presence,
            market.node_subscriptions,
            market.hub,
            tickets,
        )
        self.presence = presence
        self.messages = SessionMessages(
            self.sessions,
            market.broker,
            presence,
            market.hub,
            market.clock,
            message_bytes=4096,
            page_bytes=4096,
        )

    @staticmethod
    async def opened() -> "Room":
        market = await MarketRig.create(DeliveryConfig(buffer_bytes=4096, stalled_seconds=30.0))
        room = Room(market)
        await room.presence.start(room.sessions.local_presence.handle_event)
        return room

    async def join(self, name: str) -> RecordingLink:
        link = RecordingLink(clog_bytes=1024)
        self.sessions.add_connection(name, link)
        await self.sessions.join(name, member(name), "room")
        return link

    async def send(self, name: str, number: int) -> None:
        data = {"number": number, "padding": "x" * 100}
        await self.messages.send(name, member(name), "room", data, None)
        self.market.run_scheduled()


async def test_slow_member_catches_up_on_every_message() -> None:
    room = await Room.opened()
    slow, quick = await room.join("slow"), await room.join("quick")
    slow.stall()
    for number in range(18):
        await room.send("quick", number)
    assert slow.clogged
    assert len(quick.messages("message")) == 18
    slow.resume()
    room.market.settle()
    assert [each["data"]["number"] for each in slow.messages("message")] == list(range(18))
    assert [each["seq"] for each in slow.messages("message")] == list(range(1, 19))


async def test_slow_member_beyond_the_backlog_is_disconnected() -> None:
    room = await Room.opened()
    slow = await room.join("slow")
    await room.join("quick")
    slow.stall()
    for number in range(60):
        await room.send("quick", number)
    slow.resume()
    room.market.settle()
    assert slow.ended == ["server.overloaded"]
    received = [each["seq"] for each in slow.messages("message")]
    assert received == list(range(1, len(received) + 1)), "no gap before the disconnect"


async def test_slow_member_misses_signals_but_not_presence() -> None:
    room = await Room.opened()
    slow, quick = await room.join("slow"), await room.join("quick")
    slow.clogged = True
    await room.messages.signal("quick", member("quick"), "room", {"typing": True})
    assert slow.messages("signal") == []
    assert room.sessions.local_presence.dropped_signals == 1
    late = await room.join("late")
    room.market.settle()
    assert [each["user_id"] for each in slow.messages("user_joined")][-1] == "late", (
        "presence is not dropped"
    )
    await room.messages.signal("quick", member("quick"), "room", {"typing": False})
    assert len(late.messages("signal")) == 1
    assert quick.messages("signal") == []


async def test_signal_follows_older_messages() -> None:
    room = await Room.opened()
    ann = await room.join("ann")
    await room.join("bob")
    data = {"text": "first"}
    await room.messages.send("bob", member("bob"), "room", data, None)
    await room.messages.signal("bob", member("bob"), "room", {"typing": True})
    room.market.settle()
    assert [event for event, _ in ann.events()] == ["user_joined", "message", "signal"]


async def test_member_with_too_many_unsent_bytes_is_disconnected() -> None:
    room = await Room.opened()
    slow = await room.join("slow")
    slow.stall()
    for number in range(40):
        await room.join(f"u{number}")
    assert slow.max_buffered_bytes <= 4096
    assert slow.ended[:1] == ["server.overloaded"]
    assert room.market.counters.total("delivery.overloaded") == len(slow.ended), "each is counted"


async def test_log_is_deleted_once_the_broker_can(monkeypatch: pytest.MonkeyPatch) -> None:
    room = await Room.opened()
    broker, forgotten = room.market.broker, list[bool]()
    can_forget = False
    forget = broker.forget

    async def try_to_forget(channel: str) -> bool:
        forgotten.append(can_forget and await forget(channel))
        return forgotten[-1]

    monkeypatch.setattr(broker, "forget", try_to_forget)
    for _ in range(2):
        await room.join("ann")
        await room.send("ann", 1)
        await room.sessions.remove_connection("ann", deliberate=True)
        room.market.clock.advance(61)
        await room.sessions.sweep()
        assert forgotten == [False]
        await room.sessions.sweep()
        assert forgotten == [False, False]
        can_forget = True
        await room.sessions.sweep()
        await room.sessions.sweep()
        assert forgotten == [False, False, True]
        assert (await broker.head(session_channel("default", "room"))).seq == 0
        forgotten.clear()
        can_forget = False


async def test_log_of_a_session_that_is_back_is_not_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = await Room.opened()
    broker = room.market.broker
    forget = broker.forget
    monkeypatch.setattr(broker, "forget", AsyncMock(return_value=False))
    await room.join("ann")
    await room.send("ann", 1)
    await room.sessions.remove_connection("ann", deliberate=True)
    room.market.clock.advance(61)
    await room.sessions.sweep()
    await room.join("bob")
    await room.sessions.remove_connection("bob", deliberate=True)
    monkeypatch.setattr(broker, "forget", forget)
    await room.sessions.sweep()
    assert (await broker.head(session_channel("default", "room"))).seq == 1


async def test_history_page_is_bounded_in_bytes() -> None:
    room = await Room.opened()
    await room.join("ann")
    for number in range(60):
        await room.send("ann", number)

    async def page(before_seq: int | None, limit: int) -> list[int]:
        reply = await room.messages.history("ann", member("ann"), "room", before_seq, limit)
        bodies = loads(dumps(reply["messages"]))
        assert len(dumps(reply["messages"])) < 8192
        return [each["seq"] for each in bodies]

    found = await page(None, 1000)
    assert found == list(range(found[0], 61))
    assert 10 < len(found) < 60
    while found[0] > 1:
        found = await page(found[0], 1000) + found
    assert found == list(range(1, 61))
    assert await page(9, 2) == [7, 8]
    await room.messages.send("ann", member("ann"), "room", {"text": "x" * 4050}, None)
    assert await page(None, 9) == [61], "one at least"
