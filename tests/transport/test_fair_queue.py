"""Tests that connections which take much of the loop's time wait for each other."""

import asyncio
from collections.abc import Callable

import pytest

from server.core.counters import Counters
from server.core.wire.packets import PacketKind, RawPacket
from server.ports import ignore
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
        self.on_step: Callable[[Client], None] = ignore

    async def handle(self, packet: RawPacket) -> None:
        for _ in range(self._yields):
            self.on_step(self)
            self._clock.advance(self._seconds)
            await asyncio.sleep(0)
        self._clock.advance(self._seconds)
        self.handled += 1

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


class SteppingClient(Client):
    """A connection whose handler waits for an event, and then takes long."""

    def __init__(self, queue: FairQueue, clock: ManualClock, event: asyncio.Event) -> None:
        super().__init__(queue, clock, 0.01)
        self.value: object = None
        self.cleaned_with: object = None
        self._event = event

    async def handle(self, packet: RawPacket) -> None:
        try:
            self.value = await self._event.wait()
        except asyncio.CancelledError:
            self.cleaned_with = await _value_after_a_turn("cleaned")
            raise
        await super().handle(packet)


async def _value_after_a_turn(value: str) -> str:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, value)
    return await future


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


async def test_large_packets_of_new_clients_share_their_turn(
    queue: FairQueue, clock: ManualClock
) -> None:
    large = PACKET._replace(body=f'["subscribe",{{"topics":["{"x" * 5000}"]}}]')
    clients = [Client(queue, clock, 0.003) for _ in range(20)]
    for each in clients:
        each.inbox.put(large)
    # None has used its budget, but the turn is full after two.
    assert [each.handled for each in clients] == [1] * 2 + [0] * 18
    modest = Client(queue, clock, 0.0001)
    modest.inbox.put(PACKET)
    assert modest.handled == 1, "a small packet does not wait for large ones"
    for turn in range(1, 10):
        await asyncio.sleep(0)
        assert sum(each.handled for each in clients) == 2 + 2 * turn
    assert all(each.handled and each.is_reading for each in clients)


async def test_client_within_its_budget_waits_before_those_over_theirs(
    queue: FairQueue, clock: ManualClock
) -> None:
    greedy = [Client(queue, clock, 0.01) for _ in range(10)]
    for each in greedy:
        for _ in range(12):
            each.inbox.put(PACKET)
    event = asyncio.Event()
    suspended, sender = SteppingClient(queue, clock, event), Client(queue, clock, 0.001)
    suspended.inbox.put(PACKET)
    sender.inbox.put(PACKET._replace(body=f'["send",{{"data":"{"x" * 5000}"}}]'))
    event.set()
    for _ in range(6):
        await asyncio.sleep(0)
    assert (suspended.handled, sender.handled) == (1, 1)
    assert sum(each.handled for each in greedy) < 30


async def test_long_steps_that_are_due_together_share_their_turn(
    queue: FairQueue, clock: ManualClock
) -> None:
    event = asyncio.Event()
    clients = [SteppingClient(queue, clock, event) for _ in range(20)]
    for each in clients:
        each.inbox.put(PACKET)
    event.set()
    for _ in range(60):
        before = clock.monotonic()
        await asyncio.sleep(0)
        assert clock.monotonic() - before <= 0.011
    assert [(each.handled, each.value) for each in clients] == [(1, True)] * 20


async def test_client_over_its_budget_is_served_while_others_always_fill_the_turn(
    queue: FairQueue, clock: ManualClock
) -> None:
    greedy = Client(queue, clock, 0.01)
    for _ in range(12):
        greedy.inbox.put(PACKET)
    event = asyncio.Event()
    others = [SteppingClient(queue, clock, event) for _ in range(30)]
    for each in others:
        each.inbox.put(PACKET)
    event.set()
    before = greedy.handled
    for _ in range(20):
        await asyncio.sleep(0)
    assert 5 < sum(each.handled for each in others) < 30
    assert greedy.handled > before + 5


async def test_steps_that_find_their_turn_full_do_not_starve(
    queue: FairQueue, clock: ManualClock
) -> None:
    clients = [Client(queue, clock, 0.01, yields=100) for _ in range(16)]
    for each in clients:
        each.inbox.put(PACKET)
    steps: list[Client] = []
    for each in clients:
        each.on_step = steps.append
    for _ in range(200):
        await asyncio.sleep(0)
    assert min(steps.count(each) for each in clients) >= 5


async def test_cancelled_handler_is_not_resumed_with_its_delayed_value(
    queue: FairQueue, clock: ManualClock
) -> None:
    event = asyncio.Event()
    clients = [SteppingClient(queue, clock, event) for _ in range(3)]
    for each in clients:
        each.inbox.put(PACKET)
    event.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [each.handled for each in clients] == [1, 0, 0]
    clients[1].inbox.close()
    for _ in range(10):
        await asyncio.sleep(0)
    assert [each.handled for each in clients] == [1, 0, 1]
    assert [each.cleaned_with for each in clients] == [None, "cleaned", None]


async def test_client_with_many_refused_events_is_not_read_until_its_turn(
    queue: FairQueue, clock: ManualClock
) -> None:
    client, other = Client(queue, clock, 0.0001), Client(queue, clock, 0.0001)
    refused = 0
    while client.is_reading:
        client.inbox.count_refused()
        refused += 1
    assert 100 < refused < 1000
    other.inbox.put(PACKET)
    assert other.handled == 1
    client.inbox.put(PACKET)
    assert client.handled == 0
    await client.inbox.wait_idle()
    assert (client.handled, client.is_reading) == (1, True)


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
