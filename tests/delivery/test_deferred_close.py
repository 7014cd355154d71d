"""Clients that end while something is brought to many, and whose end is news for the others."""

import pytest

from server.core.counters import Counters
from server.core.log.entries import Entry, Position, Reset
from server.core.wire.packets import event_head
from server.delivery import DeliveryConfig, Hub
from server.delivery.session_state import SessionState
from tests.kit.clock import ManualClock
from tests.kit.network.links import RecordingLink

BUFFER_BYTES = 1024
FULL = b"x" * BUFFER_BYTES


class Room:
    """A session without a grace time: whoever ends has left, and the others are told at once."""

    def __init__(self, *, recoverable: bool) -> None:
        self.recoverable = recoverable
        self.fanout = Hub(
            DeliveryConfig(buffer_bytes=BUFFER_BYTES, recoverable=recoverable),
            clock=ManualClock(),
            counters=Counters(),
            schedule=lambda call, seconds: None,
        )
        view = SessionState("s", Position("e1", 0), max_messages=100, max_bytes=100_000)
        self.channel = self.fanout.open("session", view)
        self.left: list[str] = []

    def member(self, name: str, *, deflates: bool = False) -> RecordingLink:
        """Somebody who has joined, over a link that says when it has ended, as a real one does."""
        link = RecordingLink(clog_bytes=BUFFER_BYTES // 4)
        link.deflates = deflates
        link.on_end = lambda: self._leave(name)
        self.fanout.attach(name, link, numbered=self.recoverable)
        self.fanout.subscribe(name, self.channel, 0)
        return link

    def _leave(self, name: str) -> None:
        if name in self.left:
            return
        self.left.append(name)
        if self.recoverable:
            self.fanout.park(name)
        else:
            self.fanout.detach(name)
        event = event_head("/session", "user_left", b'{"user_id":"%b"}' % name.encode())
        self.fanout.broadcast(self.channel, event)

    def say(self, *numbers: int) -> None:
        """Bring messages to everybody, as one turn of the loop."""
        for seq in numbers:
            data = b'{"id":"%d"}' % seq
            self.fanout.deliver(Entry("session", Position("e1", seq), 5, data))
        self.fanout.flush()

    def listeners(self) -> list[str]:
        """Who stands in the session."""
        return sorted(client.id for client in self.channel.clients())


@pytest.fixture(params=[False, True], ids=["gone", "parked"])
def room(request: pytest.FixtureRequest) -> Room:
    return Room(recoverable=request.param)


def heard(link: RecordingLink) -> list[object]:
    """What a member was sent: numbers of messages, and names of those who left."""
    return [body.get("seq", body.get("user_id")) for body in link.messages()]


def test_a_gap_in_a_session_leaves_nobody_there_who_was_sent_away(room: Room) -> None:
    links = [room.member(name) for name in ("ann", "bob", "carl")]
    room.say(1)
    data = b'{"id":"9"}'
    last = Entry("session", Position("e1", 9), 5, data)
    room.fanout.reset(Reset("session", last.position, last))
    assert [link.ended for link in links] == [["server.overloaded"]] * 3
    assert room.listeners() == []
    assert len(room.channel.parked) == 3 * room.recoverable


def test_who_leaves_because_a_write_failed_has_left_behind_that_message(room: Room) -> None:
    ann = room.member("ann")
    bob = room.member("bob")
    # Who compresses is served behind the others.
    zoe = room.member("zoe", deflates=True)
    bob.broken = True
    room.say(1, 2)
    assert heard(ann) == [1, 2, "bob"]
    assert heard(zoe) == [1, 2, "bob"]
    assert bob.aborted == ["a write failed"]
    assert room.listeners() == ["ann", "zoe"]


def test_a_leaving_that_drives_another_one_out_keeps_no_message_from_anybody(room: Room) -> None:
    ann = room.member("ann")
    bob = room.member("bob")
    full = room.member("full")
    dora = room.member("dora")
    full.stall()
    full.write(FULL)
    bob.broken = True
    dora.clogged = True
    room.say(1)
    assert heard(ann) == [1, "bob", "full"]
    assert (bob.aborted, full.ended) == (["a write failed"], ["server.overloaded"])
    assert room.listeners() == ["ann", "dora"]


def test_news_that_drives_many_out_reaches_everybody_else(room: Room) -> None:
    slow = [room.member(name) for name in ("bob", "carl")]
    ann = room.member("ann")
    for link in slow:
        link.stall()
        link.write(FULL)
    room.fanout.broadcast(room.channel, event_head("/session", "user_joined", b'{"user_id":"eve"}'))
    assert heard(ann) == ["eve", "bob", "carl"]
    assert [link.ended for link in slow] == [["server.overloaded"]] * 2
    assert room.listeners() == ["ann"]


def test_who_has_to_go_is_told_nothing_more_that_would_fit(room: Room) -> None:
    bob = room.member("bob")
    carl = room.member("carl")
    bob.stall()
    # Room for the short news, and not for the long.
    bob.write(b"x" * (BUFFER_BYTES - 200))
    carl.broken = True
    long = b'{"user_id":"%b"}' % (b"e" * 300)
    room.fanout.broadcast(room.channel, event_head("/session", "user_joined", long))
    assert len(bob.written) == 1, "not even that carl has left"
    assert (bob.ended, carl.aborted) == (["server.overloaded"], ["a write failed"])
