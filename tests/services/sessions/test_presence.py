"""Presence under concurrent joins, leaves, kicks and closes."""

import random
from collections import Counter
from typing import Any

import pytest

from server.access import Principal
from server.core.errors import FloorcastError
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.records import SessionRules
from server.services import SessionMessages, SessionsConfig, SessionsService
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import MarketRig
from tests.kit.rigs.slow_presence import SlowPresence

KEY = ("default", "room")


def member(user: str) -> Principal:
    return Principal(user, "default", frozenset({"session:join", "session:moderate"}), 1e12)


class Client:
    """A connection, and the users it believes to be in the session."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.link = RecordingLink(clog_bytes=1 << 20)
        self.believed: set[str] | None = None
        self.read = 0
        self.leaving = False

    def joined(self, reply: dict[str, Any]) -> None:
        """Apply a join reply; earlier events belong to an earlier membership."""
        self.catch_up()
        self.believed = {each["user_id"] for each in reply["participants"]}
        assert reply["participant_count"] == len(self.believed)

    def catch_up(self) -> None:
        """Apply the events received since the last call."""
        events = self.link.events()
        for event, body in events[self.read :]:
            assert body.get("user_id") != self.name[:-1] or event == "message", (event, body)
            if event == "session_closed":
                self.believed = None
            if event not in ("user_joined", "user_left"):
                continue
            assert self.believed is not None, (self.name, event, body)
            if event == "user_joined":
                assert body["user_id"] not in self.believed
                self.believed.add(body["user_id"])
            else:
                self.believed.remove(body["user_id"])
            # A leaving client may be excluded from the count already.
            without = self.believed - {self.name[:-1]} if self.leaving else self.believed
            assert body["participant_count"] in (len(self.believed), len(without))
        self.read = len(events)


class Room:
    """A session whose every broker call the test interleaves."""

    def __init__(self, market: MarketRig) -> None:
        self.market = market
        self.presence = SlowPresence(market.clock, SessionRules(10.0, 60.0))
        self.service = SessionsService(
            SessionsConfig(),
            market.broker,
            self.presence,
            market.node_subscriptions,
            market.hub,
            ResumeTickets(window_seconds=60.0, max_parked=10, max_parked_per_owner=10),
        )
        self.messages = SessionMessages(
            self.service,
            market.broker,
            self.presence,
            market.hub,
            market.clock,
            message_bytes=4096,
            page_bytes=4096,
        )
        self.clients = [Client(name) for name in ("ann1", "ann2", "bob1", "bob2", "cid1")]
        self.removed: set[str] = set()
        self.done: Counter[str] = Counter()

    def connect_all(self) -> None:
        for client in self.clients:
            self.service.add_connection(client.name, client.link)

    async def run_requests(self, client: Client, dice: random.Random) -> None:
        """Run a few random requests in sequence, as for one client's packets."""
        me = member(client.name[:-1])
        for _ in range(4):
            if client.name in self.removed:
                return
            act = dice.choice(("join", "join", "leave", "send", "kick", "close", "who", "exit"))
            try:
                match act:
                    case "join":
                        client.joined(await self.service.join(client.name, me, "room"))
                    case "leave":
                        client.catch_up()
                        client.leaving = True
                        await self.service.leave(client.name, me, "room")
                        client.catch_up()
                        client.believed = None
                    case "send":
                        await self.messages.send(client.name, me, "room", {}, None)
                    case "kick":
                        await self.service.kick(me, "room", dice.choice(("ann", "bob")))
                    case "close" if dice.random() < 0.1:
                        await self.service.close(me, "room")
                    case "who":
                        await self.service.participants(me, "room")
            except FloorcastError:
                self.done[f"{act} refused"] += 1
            else:
                self.done[act] += 1
            finally:
                client.leaving = False

    async def remove(self, client: Client, *, lost: bool) -> None:
        """Remove the connection, whatever request is running."""
        client.catch_up()
        self.removed.add(client.name)
        await self.service.remove_connection(client.name, deliberate=not lost)

    async def check(self) -> None:
        """Assert that all clients agree with the presence record; nothing may be in flight."""
        await self.service.release_idle()
        self.market.settle()
        record = self.presence.sessions.get(*KEY)
        members = () if record is None else record.presence.members()
        users = {each.user_id for each in members}
        for client in self.clients:
            is_member = record is not None and record.presence.user_of(client.name) is not None
            assert is_member == ((client.name, KEY) in self.service.memberships)
            if client.name not in self.removed:
                client.catch_up()
                assert (client.believed is not None) == is_member
                assert client.believed is None or client.believed == users
        assert self.market.hub.topic_count == bool(len(self.service.memberships))
        assert not self.market.node_subscriptions._holds
        assert not self.service.local_presence._joining


@pytest.mark.behaviour("D42")
@pytest.mark.parametrize("seed", range(150))
async def test_members_agree_on_presence_at_any_interleaving(seed: int) -> None:
    dice = random.Random(seed)
    room = Room(await MarketRig.create())
    await room.presence.start(room.service.local_presence.handle_event)
    room.connect_all()
    for _ in range(3):
        connected = [each for each in room.clients if each.name not in room.removed]
        calls = [room.run_requests(client, random.Random(dice.random())) for client in connected]
        if dice.random() < 0.5 and connected:
            calls.append(room.remove(dice.choice(connected), lost=dice.random() < 0.5))
        await room.presence.interleave(calls, dice)
        await room.check()
    removals = [room.remove(client, lost=False) for client in room.clients]
    await room.presence.interleave(removals, dice)
    await room.check()
    assert (room.market.hub.topic_count, room.market.hub.link_count) == (0, 0)
    assert len(room.service.memberships) == 0
