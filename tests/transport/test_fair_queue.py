"""Tests that connections which take much of the loop's time wait for each other."""

import asyncio

import pytest

from server.core.counters import Counters
from server.core.wire.packets import PacketKind, RawPacket
from server.tasks import TaskOwner
from server.transport.fair_queue import FairQueue
from server.transport.inbox import Inbox
from tests.kit.clock import ManualClock

PACKET = RawPacket(PacketKind.EVENT, "/market", None, '["subscriptions"]')


class Client:
    """A connection whose packets take some time, and may yield several times."""

    def __init__(
        self, queue: FairQueue, clock: ManualClock, seconds: float, *, yields: int = 0
    ) -> None:
        self.inbox = Inbox(self, queue)
        self.handled = 0
        self.is_reading = True
        self._clock = clock
        self._seconds = seconds
        self._yields = yields

    async def handle(self, packet: RawPacket) -> None:
        for _ in range(self._yields):
            self._clock.advance(self._seconds)
            await asyncio.sleep(0)
        self._clock.advance(self._seconds)
        self.handled += 1

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def queue(clock: ManualClock) -> FairQueue:
    return FairQueue(clock, TaskOwner(Counters()), clock.monotonic)


async def test_client_within_its_budget_is_served_at_once(
    queue: FairQueue, clock: ManualClock
) -> None:
    client = Client(queue, clock, 0.0001)
    for _ in range(10):
        client.inbox.put(PACKET)
    assert (client.handled, client.is_reading, len(queue)) == (10, True, 0)


async def test_client_over_its_budget_waits_and_is_not_read(
    queue: FairQueue, clock: ManualClock
) -> None:
    client = Client(queue, clock, 0.01)
    for _ in range(5):
        client.inbox.put(PACKET)
    # The first is blamed for little: the process may have waited for its core.
    assert (client.handled, client.is_reading, client.inbox.waiting_count) == (2, False, 3)
    # The time of one turn of the loop is over after one more.
    await asyncio.sleep(0)
    assert client.handled == 3
    await client.inbox.wait_idle()
    assert (client.handled, client.is_reading, len(queue)) == (5, True, 0)


async def test_waiting_clients_take_turns_and_others_do_not_wait(
    queue: FairQueue, clock: ManualClock
) -> None:
    greedy = [Client(queue, clock, 0.01) for _ in range(3)]
    for each in greedy:
        for _ in range(12):
            each.inbox.put(PACKET)
    modest = Client(queue, clock, 0.0001)
    for turn in range(1, 10):
        await asyncio.sleep(0)
        assert sum(each.handled for each in greedy) == 6 + turn
        modest.inbox.put(PACKET)
        assert modest.handled == turn
    assert [each.handled for each in greedy] == [5, 5, 5]


async def test_handler_that_yields_waits_for_its_turn(queue: FairQueue, clock: ManualClock) -> None:
    clients = [Client(queue, clock, 0.01, yields=10) for _ in range(3)]
    for each in clients:
        each.inbox.put(PACKET)
    began = clock.monotonic()
    for _ in range(12):
        before = clock.monotonic()
        await asyncio.sleep(0)
        # Two steps are started in a turn, because nobody knows how long they take.
        assert clock.monotonic() - before <= 0.031
    await asyncio.gather(*(each.inbox.wait_idle() for each in clients))
    assert [each.handled for each in clients] == [1, 1, 1]
    assert clock.monotonic() - began == pytest.approx(0.3)


async def test_closed_client_leaves_the_queue(queue: FairQueue, clock: ManualClock) -> None:
    waiting, suspended = Client(queue, clock, 0.01), Client(queue, clock, 0.01, yields=5)
    for _ in range(5):
        waiting.inbox.put(PACKET)
    suspended.inbox.put(PACKET)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    handled = waiting.handled
    for each in (waiting, suspended):
        each.inbox.close()
        await each.inbox.wait_idle()
    await asyncio.sleep(0)
    assert (waiting.handled, suspended.handled, len(queue)) == (handled, 0, 0)
