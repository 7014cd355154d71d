"""Sessions without sockets: who lags hears every message or is told to come back."""

from server.access import Principal
from server.brokers import MemoryPresence
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.records import SessionRules
from server.delivery import DeliveryConfig
from server.services import SessionMessages, SessionsConfig, SessionsService
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import MarketRig


def member(user: str) -> Principal:
    return Principal(user, "default", frozenset({"session:join", "session:moderate"}), 1e12)


class Room:
    """One session on a desk whose links are small."""

    def __init__(self, desk: MarketRig) -> None:
        self.desk = desk
        rules = SessionRules(grace_seconds=10.0, retention_seconds=60.0)
        assembly = MemoryPresence(desk.clock, rules)
        tickets = ResumeTickets(window_seconds=60.0, max_parked=10, max_parked_per_owner=10)
        self.sessions = SessionsService(
            SessionsConfig(backlog_messages=20),
            desk.broker,
            assembly,
            desk.node_subscriptions,
            desk.hub,
            tickets,
        )
        self.presence = assembly
        self.messages = SessionMessages(
            self.sessions, desk.broker, assembly, desk.hub, desk.clock, message_bytes=4096
        )

    @staticmethod
    async def opened() -> "Room":
        desk = await MarketRig.create(DeliveryConfig(buffer_bytes=4096, stalled_seconds=30.0))
        room = Room(desk)
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
        self.desk.run_scheduled()


async def test_who_lags_hears_every_message_when_it_reads_again() -> None:
    room = await Room.opened()
    slow, quick = await room.join("slow"), await room.join("quick")
    slow.stall()
    for number in range(18):
        await room.send("quick", number)
    assert slow.clogged
    assert len(quick.messages("message")) == 18
    slow.resume()
    room.desk.settle()
    assert [each["data"]["number"] for each in slow.messages("message")] == list(range(18))
    assert [each["seq"] for each in slow.messages("message")] == list(range(1, 19))


async def test_who_lags_so_far_that_messages_are_gone_is_sent_to_come_back() -> None:
    room = await Room.opened()
    slow = await room.join("slow")
    await room.join("quick")
    slow.stall()
    for number in range(60):
        await room.send("quick", number)
    slow.resume()
    room.desk.settle()
    assert slow.ended == ["server.overloaded"]
    heard = [each["seq"] for each in slow.messages("message")]
    assert heard == list(range(1, len(heard) + 1)), "until then nothing was left out"


async def test_a_signal_is_the_first_thing_that_a_lagging_member_does_not_hear() -> None:
    room = await Room.opened()
    slow, quick = await room.join("slow"), await room.join("quick")
    slow.clogged = True
    await room.messages.signal("quick", member("quick"), "room", {"typing": True})
    assert slow.messages("signal") == []
    assert room.sessions.local_presence.dropped_signals == 1
    late = await room.join("late")
    room.desk.settle()
    assert [each["user_id"] for each in slow.messages("user_joined")][-1] == "late", "that it does"
    await room.messages.signal("quick", member("quick"), "room", {"typing": False})
    assert len(late.messages("signal")) == 1
    assert quick.messages("signal") == []


async def test_a_signal_never_stands_before_a_message_that_is_older() -> None:
    room = await Room.opened()
    ann = await room.join("ann")
    await room.join("bob")
    data = {"text": "first"}
    await room.messages.send("bob", member("bob"), "room", data, None)
    await room.messages.signal("bob", member("bob"), "room", {"typing": True})
    room.desk.settle()
    assert [event for event, _ in ann.events()] == ["user_joined", "message", "signal"]


async def test_a_member_that_would_have_too_much_unread_is_let_go() -> None:
    room = await Room.opened()
    slow = await room.join("slow")
    slow.stall()
    for number in range(40):
        await room.join(f"u{number}")
    assert slow.max_buffered_bytes <= 4096
    assert slow.ended[:1] == ["server.overloaded"]
    assert room.desk.counters.total("delivery.overloaded") == len(slow.ended), "and it is counted"
