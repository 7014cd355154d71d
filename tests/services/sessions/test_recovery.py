"""Recovery of session members: every message and presence event once, in order."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.access import Principal
from server.brokers import MemoryNoticeStore, MemoryPresence
from server.core.connections import ConnectionManager
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.notices import Notices
from server.core.sessions.records import SessionRules
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

names = st.sampled_from(["ann", "bob", "carl"])
KINDS = ("message", "user_joined", "user_left")
ReceivedEvent = tuple[str, object]


def principal(user: str) -> Principal:
    return Principal(user, "default", frozenset({"session:join"}), expires_at=1e12)


class TrackedClient:
    """The events one client has received, and its last offset."""

    def __init__(self) -> None:
        self.received: list[ReceivedEvent] = []
        self.since = 0
        # Written after the events it has surely received, in the order of their offsets.
        self.fresh: list[tuple[ReceivedEvent | None, str]] = []
        self.offset: str | None = None
        self.link: RecordingLink | None = None
        self.writes = 0

    def collect(self) -> None:
        assert self.link is not None
        events = self.link.numbered_events(self.writes)
        self.writes = len(self.link.written)
        for event, body, offset in events:
            assert offset is not None
            self.fresh.append((item(event, body) if event in KINDS else None, offset))

    def read(self, count: int | None = None) -> None:
        for received, offset in self.fresh[:count]:
            self.offset = offset
            if received is not None:
                self.received.append(received)
        self.fresh = []


def item(event: str, body: dict[str, Any]) -> ReceivedEvent:
    return event, body["seq"] if event == "message" else body["user_id"]


class RecoveryMachine(RuleBasedStateMachine):
    """A session with an observer of all events, and clients that disconnect and resume."""

    @initialize(grace=st.sampled_from([0.0, 10.0]))
    def open(self, grace: float) -> None:
        self.loop = asyncio.new_event_loop()
        delivery = DeliveryConfig(buffer_bytes=64 * 1024, recoverable=True)
        self.market: MarketRig = self.run(MarketRig.create(delivery))
        self.tickets = ResumeTickets(window_seconds=60, max_parked=100, max_parked_per_owner=100)
        rules = SessionRules(grace_seconds=grace, retention_seconds=1000)
        presence = MemoryPresence(self.market.clock, rules)
        self.sessions = SessionsService(
            SessionsConfig(),
            self.market.broker,
            presence,
            self.market.node_subscriptions,
            self.market.hub,
            self.tickets,
        )
        self.run(presence.start(self.sessions.local_presence.handle_event))
        self.messages = SessionMessages(
            self.sessions,
            self.market.broker,
            presence,
            self.market.hub,
            self.market.clock,
            message_bytes=4096,
            page_bytes=4096,
        )
        notices = Notices(keep_seconds=60, max_per_user=10, max_total=10)
        notifications = Notifications(
            MemoryNoticeStore(self.market.clock, notices),
            ConnectionManager(),
            self.market.hub,
            self.tickets,
            self.market.clock,
            message_bytes=4096,
        )
        self.recovery = SessionRecovery(self.sessions, presence, notifications, self.market.hub)
        self.connected: dict[str, TrackedClient] = {}
        self.parked: dict[str, TrackedClient] = {}
        self.observer = RecordingLink()
        self.sessions.add_connection("observer", self.observer)
        self.run(self.sessions.join("observer", principal("observer"), "room"))
        for name in ("ann", "bob"):
            self.join(name)

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        if not hasattr(self, "market"):
            return
        try:
            for name in list(self.parked):
                self.resume(name)
            self.send("observer", 1)
            for name in list(self.connected):
                self.run(self.sessions.remove_connection(name, deliberate=True))
            self.run(self.sessions.remove_connection("observer", deliberate=True))
            assert self.market.hub.channels() == ()
            assert self.market.hub.link_count == 0
            assert self.sessions.local_presence._parked == {}
        finally:
            self.loop.close()

    @rule(name=names)
    def join(self, name: str) -> None:
        if name in self.connected or name in self.parked:
            return
        client = self.connected[name] = TrackedClient()
        client.link = RecordingLink()
        self.sessions.add_connection(name, client.link, numbered=True)
        self.tickets.issue(name, ("default", name))
        self.run(self.sessions.join(name, principal(name), "room"))
        self.market.settle()
        client.since = len(self.expected_events())

    @rule(name=st.sampled_from(["ann", "bob", "carl", "observer"]), count=st.integers(1, 5))
    def send(self, name: str, count: int) -> None:
        if name in self.connected or name == "observer":
            for _ in range(count):
                self.run(self.messages.send(name, principal(name), "room", {"x": 1}, None))

    @rule()
    def turn(self) -> None:
        self.market.run_scheduled()

    @rule(name=names)
    def signal(self, name: str) -> None:
        if name in self.connected:
            self.run(self.messages.signal(name, principal(name), "room", {"typing": True}))

    @rule(name=names, share=st.floats(0, 1))
    def disconnect(self, name: str, share: float) -> None:
        if name in self.connected:
            client = self.parked[name] = self.connected.pop(name)
            client.collect()
            client.read(round(share * len(client.fresh)))
            self.tickets.park(name, self.market.clock.monotonic())
            self.recovery.park(name)

    @rule(name=names)
    def resume(self, name: str) -> None:
        if name not in self.parked:
            return
        client = self.connected[name] = self.parked.pop(name)
        client.link, client.writes = RecordingLink(), 0
        resuming = ResumingClient(principal(name), client.link, "pid", client.offset)
        assert self.recovery.resume(name, resuming, b"")
        self.tickets.resume(name)

    @rule(name=names)
    def leave(self, name: str) -> None:
        if name in self.connected:
            del self.connected[name]
            self.tickets.remove(name)
            self.run(self.sessions.remove_connection(name, deliberate=True))

    @rule(name=names)
    def read(self, name: str) -> None:
        if name in self.connected:
            self.connected[name].collect()
            self.connected[name].read()

    @rule(seconds=st.sampled_from([1.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self.market.clock.advance(seconds)
        self.run(self.sessions.sweep())

    @invariant()
    def connected_members_received_all_events_once(self) -> None:
        if not hasattr(self, "market"):
            return
        self.market.settle()
        expected_all = self.expected_events()
        for name, client in self.connected.items():
            client.collect()
            fresh = [received for received, _ in client.fresh if received is not None]
            expected = [each for each in expected_all[client.since :] if each[1] != name]
            assert client.received + fresh == expected

    def expected_events(self) -> list[ReceivedEvent]:
        return [item(event, body) for event, body in self.observer.events() if event in KINDS]


RecoveryMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_resuming_members_receive_the_same_events = pytest.mark.behaviour("E14")(
    pytest.mark.timeout(240)(RecoveryMachine.TestCase)
)
