"""Tests clients that close during a delivery, and the events this triggers for others."""

import pytest

from server.core.counters import Counters
from server.core.log.entries import Entry, Position, Reset
from server.core.sessions.session_state import SessionState
from server.core.wire.packets import event_head
from server.delivery import DeliveryConfig, Hub
from tests.kit.clock import ManualClock
from tests.kit.network.links import RecordingLink

BUFFER_BYTES = 1024
FULL = b"x" * BUFFER_BYTES


class SessionRig:
    """A session without a grace period: a closed member has left, and the others get an event."""

    def __init__(self, *, recoverable: bool) -> None:
        self.recoverable = recoverable
        self.hub = Hub(
            DeliveryConfig(buffer_bytes=BUFFER_BYTES, recoverable=recoverable),
            clock=ManualClock(),
            counters=Counters(),
            schedule=lambda call, seconds: None,
        )
        state = SessionState("s", Position("e1", 0), max_messages=100, max_bytes=100_000)
        self.channel = self.hub.open("session", state)
        self.left: list[str] = []

    def join(self, name: str, *, deflates: bool = False) -> RecordingLink:
        """Add a member whose link reports its end, as a real one does."""
        link = RecordingLink(clog_bytes=BUFFER_BYTES // 4)
        link.deflates = deflates
        link.on_end = lambda: self._leave(name)
        self.hub.attach(name, link, numbered=self.recoverable)
        self.hub.subscribe(name, self.channel, 0)
        return link

    def _leave(self, name: str) -> None:
        if name in self.left:
            return
        self.left.append(name)
        if self.recoverable:
            self.hub.park(name)
        else:
            self.hub.detach(name)
        event = event_head("/session", "user_left", b'{"user_id":"%b"}' % name.encode())
        self.hub.broadcast(self.channel, event)

    def publish(self, *numbers: int) -> None:
        """Deliver messages to all members in one turn of the loop."""
        for seq in numbers:
            data = b'{"id":"%d"}' % seq
            self.hub.deliver(Entry("session", Position("e1", seq), 5, data))
        self.hub.flush()

    def subscribers(self) -> list[str]:
        """The names of the subscribed members."""
        return sorted(client.id for client in self.channel.clients())


@pytest.fixture(params=[False, True], ids=["gone", "parked"])
def session(request: pytest.FixtureRequest) -> SessionRig:
    return SessionRig(recoverable=request.param)


def received(link: RecordingLink) -> list[object]:
    """What a member received: seqs of messages, and names in events."""
    return [body.get("seq", body.get("user_id")) for body in link.messages()]


def test_gap_in_a_session_disconnects_all_members(session: SessionRig) -> None:
    links = [session.join(name) for name in ("ann", "bob", "carl")]
    session.publish(1)
    data = b'{"id":"9"}'
    last = Entry("session", Position("e1", 9), 5, data)
    session.hub.reset(Reset("session", last.position, last))
    assert [link.ended for link in links] == [["server.overloaded"]] * 3
    assert session.subscribers() == []
    assert len(session.channel.parked) == 3 * session.recoverable


def test_leave_after_a_failed_write_follows_the_message(session: SessionRig) -> None:
    ann = session.join("ann")
    bob = session.join("bob")
    # Compressed links are written after the others.
    zoe = session.join("zoe", deflates=True)
    bob.broken = True
    session.publish(1, 2)
    assert received(ann) == [1, 2, "bob"]
    assert received(zoe) == [1, 2, "bob"]
    assert bob.aborted == ["a write failed"]
    assert session.subscribers() == ["ann", "zoe"]


def test_leave_that_overflows_another_client_loses_no_message(session: SessionRig) -> None:
    ann = session.join("ann")
    bob = session.join("bob")
    full = session.join("full")
    dora = session.join("dora")
    full.stall()
    full.write(FULL)
    bob.broken = True
    dora.clogged = True
    session.publish(1)
    assert received(ann) == [1, "bob", "full"]
    assert (bob.aborted, full.ended) == (["a write failed"], ["server.overloaded"])
    assert session.subscribers() == ["ann", "dora"]


def test_push_that_overflows_clients_reaches_all_others(session: SessionRig) -> None:
    slow = [session.join(name) for name in ("bob", "carl")]
    ann = session.join("ann")
    for link in slow:
        link.stall()
        link.write(FULL)
    session.hub.broadcast(
        session.channel, event_head("/session", "user_joined", b'{"user_id":"eve"}')
    )
    assert received(ann) == ["eve", "bob", "carl"]
    assert [link.ended for link in slow] == [["server.overloaded"]] * 2
    assert session.subscribers() == ["ann"]


def test_closing_client_receives_no_later_push(session: SessionRig) -> None:
    bob = session.join("bob")
    carl = session.join("carl")
    bob.stall()
    # The short event fits, the long one does not.
    bob.write(b"x" * (BUFFER_BYTES - 200))
    carl.broken = True
    long = b'{"user_id":"%b"}' % (b"e" * 300)
    session.hub.broadcast(session.channel, event_head("/session", "user_joined", long))
    assert len(bob.written) == 1, "the event that carl has left was written"
    assert (bob.ended, carl.aborted) == (["server.overloaded"], ["a write failed"])
