"""Sessions of those who were cut off: every message and every coming and going, once."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.access import Principal
from server.brokers import MemoryPresence
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.records import SessionRules
from server.delivery import DeliveryConfig
from server.services import SessionMessages, SessionsConfig, SessionsService
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import MarketRig

names = st.sampled_from(["ann", "bob", "carl"])
KINDS = ("message", "user_joined", "user_left")
ReceivedEvent = tuple[str, object]


def principal(user: str) -> Principal:
    return Principal(user, "default", frozenset({"session:join"}), expires_at=1e12)


class TrackedClient:
    """What one client has heard, and the last offset that came with it."""

    def __init__(self) -> None:
        self.received: list[ReceivedEvent] = []
        self.since = 0
        # In the order of their offsets: what was written behind what it surely has.
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
        for heard, offset in self.fresh[:count]:
            self.offset = offset
            if heard is not None:
                self.received.append(heard)
        self.fresh = []


def item(event: str, body: dict[str, Any]) -> ReceivedEvent:
    return event, body["seq"] if event == "message" else body["user_id"]


class RecoveryMachine(RuleBasedStateMachine):
    """One session, an eye that sees everything, and clients that are cut off again and again."""

    @initialize(grace=st.sampled_from([0.0, 10.0]))
    def open(self, grace: float) -> None:
        self.loop = asyncio.new_event_loop()
        delivery = DeliveryConfig(buffer_bytes=64 * 1024, recoverable=True)
        self.desk: MarketRig = self.run(MarketRig.create(delivery))
        self.tickets = ResumeTickets(window_seconds=60, max_parked=100, max_parked_per_owner=100)
        rules = SessionRules(grace_seconds=grace, retention_seconds=1000)
        assembly = MemoryPresence(self.desk.clock, rules)
        self.sessions = SessionsService(
            SessionsConfig(),
            self.desk.broker,
            assembly,
            self.desk.node_subscriptions,
            self.desk.hub,
            self.tickets,
        )
        self.run(assembly.start(self.sessions.local_presence.handle_event))
        self.messages = SessionMessages(
            self.sessions,
            self.desk.broker,
            assembly,
            self.desk.hub,
            self.desk.clock,
            message_bytes=4096,
        )
        self.here: dict[str, TrackedClient] = {}
        self.away: dict[str, TrackedClient] = {}
        self.eye = RecordingLink()
        self.sessions.add_connection("eye", self.eye)
        self.run(self.sessions.join("eye", principal("eye"), "room"))
        for name in ("ann", "bob"):
            self.join(name)

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        if not hasattr(self, "desk"):
            return
        try:
            for name in list(self.away):
                self.resume(name)
            self.send("eye", 1)
            for name in list(self.here):
                self.run(self.sessions.remove_connection(name, deliberate=True))
            self.run(self.sessions.remove_connection("eye", deliberate=True))
            assert self.desk.hub.channels() == ()
            assert self.desk.hub.link_count == 0
            assert self.sessions.local_presence._parked == {}
        finally:
            self.loop.close()

    @rule(name=names)
    def join(self, name: str) -> None:
        if name in self.here or name in self.away:
            return
        listener = self.here[name] = TrackedClient()
        listener.link = RecordingLink()
        self.sessions.add_connection(name, listener.link, numbered=True)
        self.tickets.issue(name, ("default", name))
        self.run(self.sessions.join(name, principal(name), "room"))
        self.desk.settle()
        listener.since = len(self.expected_events())

    @rule(name=st.sampled_from(["ann", "bob", "carl", "eye"]), count=st.integers(1, 5))
    def send(self, name: str, count: int) -> None:
        if name in self.here or name == "eye":
            for _ in range(count):
                self.run(self.messages.send(name, principal(name), "room", {"x": 1}, None))

    @rule()
    def turn(self) -> None:
        self.desk.run_scheduled()

    @rule(name=names)
    def signal(self, name: str) -> None:
        if name in self.here:
            self.run(self.messages.signal(name, principal(name), "room", {"typing": True}))

    @rule(name=names, share=st.floats(0, 1))
    def cut(self, name: str, share: float) -> None:
        if name in self.here:
            listener = self.away[name] = self.here.pop(name)
            listener.collect()
            listener.read(round(share * len(listener.fresh)))
            self.tickets.park(name, self.desk.clock.monotonic())
            self.sessions.park(name)

    @rule(name=names)
    def resume(self, name: str) -> None:
        if name not in self.away:
            return
        listener = self.here[name] = self.away.pop(name)
        listener.link, listener.writes = RecordingLink(), 0
        assert self.sessions.resume(name, principal(name), listener.link, listener.offset)
        self.tickets.resume(name)

    @rule(name=names)
    def leave(self, name: str) -> None:
        if name in self.here:
            del self.here[name]
            self.tickets.remove(name)
            self.run(self.sessions.remove_connection(name, deliberate=True))

    @rule(name=names)
    def read(self, name: str) -> None:
        if name in self.here:
            self.here[name].collect()
            self.here[name].read()

    @rule(seconds=st.sampled_from([1.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self.desk.clock.advance(seconds)
        self.run(self.sessions.sweep())

    @invariant()
    def everybody_here_has_heard_all_of_it_once_and_in_order(self) -> None:
        if not hasattr(self, "desk"):
            return
        self.desk.settle()
        told = self.expected_events()
        for name, listener in self.here.items():
            listener.collect()
            fresh = [heard for heard, _ in listener.fresh if heard is not None]
            expected = [each for each in told[listener.since :] if each[1] != name]
            assert listener.received + fresh == expected

    def expected_events(self) -> list[ReceivedEvent]:
        return [item(event, body) for event, body in self.eye.events() if event in KINDS]


RecoveryMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_however_often_they_are_cut_off_everybody_hears_the_same = pytest.mark.behaviour("E14")(
    pytest.mark.timeout(240)(RecoveryMachine.TestCase)
)
