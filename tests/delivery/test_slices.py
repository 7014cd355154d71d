"""Tests that a delivery to many clients lets the loop serve others in between."""

from collections.abc import Callable

import pytest

from server.core.counters import Counters
from server.core.log.entries import Entry, Position
from server.core.sessions.session_state import SessionState
from server.core.wire.packets import event_head
from server.delivery import DeliveryConfig, Hub
from server.delivery.join_window import JoinWindow
from tests.kit.clock import ManualClock
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import PRICE, MarketRig

SLICE = 4


class Room:
    """One session with many members, delivered to in slices."""

    def __init__(self, members: int) -> None:
        self.scheduled: list[tuple[float, Callable[[], None]]] = []
        self.clock = ManualClock()
        self.hub = Hub(
            DeliveryConfig(recoverable=True, max_slice_writes=SLICE),
            clock=self.clock,
            counters=Counters(),
            schedule=lambda call, seconds: self.scheduled.append((seconds, call)),
        )
        state = SessionState("s", Position("e1", 0), max_messages=100, max_bytes=100_000)
        self.channel = self.hub.open("session", state)
        self.links = [self.join(f"m{number}") for number in range(members)]

    def join(self, name: str) -> RecordingLink:
        link = RecordingLink()
        self.hub.attach(name, link, numbered=True)
        self.hub.subscribe(name, self.channel, 0)
        return link

    def publish(self, seq: int) -> None:
        self.hub.deliver(Entry("session", Position("e1", seq), 5, b'{"id":"%d"}' % seq))

    def turn(self) -> None:
        """One turn of the loop."""
        calls, self.scheduled = self.scheduled, []
        for _, call in calls:
            call()

    def settle(self) -> None:
        while self.scheduled:
            self.turn()

    def received(self) -> list[list[str]]:
        return [[str(body["id"]) for body in link.messages("message")] for link in self.links]


def test_message_to_many_clients_is_written_in_slices() -> None:
    room = Room(3 * SLICE)
    room.publish(1)
    room.turn()
    for written in (SLICE, 2 * SLICE, 3 * SLICE):
        assert sum(map(bool, room.received())) == written
        room.turn()
    assert room.received() == [["1"]] * 3 * SLICE
    room.settle()
    assert room.received() == [["1"]] * 3 * SLICE


def test_later_messages_follow_held_ones_in_one_write() -> None:
    room = Room(3 * SLICE)
    room.publish(1)
    room.turn()
    room.publish(2)
    room.publish(3)
    room.settle()
    assert room.received() == [["1", "2", "3"]] * 3 * SLICE
    assert max(len(link.written) for link in room.links) == 2


def test_push_follows_the_message_that_a_client_waits_for() -> None:
    room = Room(2 * SLICE)
    room.publish(1)
    room.turn()
    room.hub.send_to(f"m{2 * SLICE - 1}", event_head("/session", "notification", b"{}"))
    assert [name for name, _ in room.links[-1].events()] == ["message", "notification"]


def test_broadcast_to_many_clients_is_written_in_slices() -> None:
    room = Room(3 * SLICE)
    room.hub.broadcast(room.channel, event_head("/session", "user_joined", b"{}"))
    assert sum(bool(link.written) for link in room.links) == SLICE
    room.settle()
    assert all(len(link.messages("user_joined")) == 1 for link in room.links)


def test_client_that_joins_between_slices_gets_only_later_messages() -> None:
    room = Room(2 * SLICE)
    room.publish(1)
    room.turn()
    late = room.join("late")
    room.publish(2)
    room.settle()
    assert [body["id"] for body in late.messages("message")] == ["2"]


def test_client_lost_between_slices_recovers_what_was_held() -> None:
    room = Room(2 * SLICE)
    name = f"m{2 * SLICE - 1}"
    room.publish(1)
    room.settle()
    [(_, _, offset)] = room.links[-1].numbered_events()
    room.publish(2)
    room.turn()
    room.links[-1].aborted.append("lost")
    room.hub.park(name)
    room.settle()
    again = RecordingLink()
    assert room.hub.resume(name, again, offset)
    room.settle()
    assert [body["id"] for body in again.messages("message")] == ["2"]


def test_failed_write_of_a_held_frame_aborts_only_that_client() -> None:
    room = Room(3 * SLICE)
    room.publish(1)
    room.turn()
    room.links[-1].broken = True
    room.settle()
    assert room.links[-1].aborted
    assert room.received()[:-1] == [["1"]] * (3 * SLICE - 1)


async def test_many_channels_of_one_turn_share_a_write_however_large_together() -> None:
    rig = await MarketRig.create(DeliveryConfig(buffer_bytes=64 * 1024))
    topics = [f"PRICE:S{number}" for number in range(40)]
    ann = await rig.client("ann", *topics)
    for topic in topics:
        await rig.publishing.publish(topic, {**PRICE, "note": "x" * 1000})
    rig.settle()
    assert len(ann.messages("price")) == 40
    assert len(ann.written) <= 4


# --- the window in which messages join


@pytest.mark.parametrize(
    ("busy_seconds", "entries", "joined"),
    [(0.001, 50, False), (0.006, 1, False), (0.006, 50, True), (0.0099, 4, True)],
    ids=["spare time", "few messages", "loaded", "overloaded"],
)
def test_messages_wait_for_others_only_under_load(
    busy_seconds: float, entries: int, joined: bool
) -> None:
    window = JoinWindow(0.01, 0.0)
    for cycle in range(1, 50):
        window.record(cycle * 0.01, busy_seconds, entries)
    assert window.seconds == (0.01 if joined else 0.0)


def test_window_grows_with_the_load_up_to_its_bound() -> None:
    lengths = []
    for busy_seconds in (0.002, 0.003, 0.004, 0.005, 0.008):
        window = JoinWindow(0.01, 0.0)
        for cycle in range(1, 50):
            window.record(cycle * 0.01, busy_seconds, 50)
        lengths.append(window.seconds)
    assert lengths == sorted(lengths)
    assert lengths[0] == 0.0
    assert 0.0 < lengths[2] < lengths[-1] == 0.01


def test_flushes_under_load_wait_and_those_of_an_idle_server_do_not() -> None:
    room = Room(SLICE)
    seq = 0
    pauses = []
    for busy_seconds in [0.008] * 40 + [0.0]:
        for _ in range(20):
            seq += 1
            room.publish(seq)
        [(pause, _)] = room.scheduled
        pauses.append(pause)
        room.turn()
        room.clock.advance(busy_seconds)
        room.turn()
        room.clock.advance(0.002)
    assert pauses[0] == 0.0
    assert pauses[39] > 0.002
    # After a while without messages.
    room.clock.advance(1.0)
    room.publish(seq + 1)
    assert [pause for pause, _ in room.scheduled] == [0.0]
