"""Tests that a node drops the messages of a silent channel once they are too old."""

import math
from collections.abc import Callable

from server.core.counters import Counters
from server.core.log.entries import Entry, Position
from server.core.sessions.session_state import SessionState
from server.delivery import DeliveryConfig, Hub
from tests.kit.clock import ManualClock
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import MarketRig

MAX_AGE_MS = 300_000


def hub_of_sessions(
    count: int, clock: ManualClock, scheduled: list[Callable[[], None]] | None = None
) -> Hub:
    """Sessions with three messages each."""
    calls = [] if scheduled is None else scheduled
    hub = Hub(
        DeliveryConfig(recoverable=True, stalled_seconds=math.inf),
        clock=clock,
        counters=Counters(),
        schedule=lambda call, seconds: calls.append(call),
    )
    now_ms = int(clock.time() * 1000)
    for number in range(count):
        name = f"session{number}"
        head = Position("e1", 0)
        state = SessionState(name, head, max_messages=100, max_bytes=100_000, max_age_ms=MAX_AGE_MS)
        hub.open(name, state)
        for seq in (1, 2, 3):
            hub.deliver(Entry(name, Position("e1", seq), now_ms, b'{"id":"%d"}' % seq))
    hub.flush()
    return hub


def kept(hub: Hub) -> int:
    """How many messages all channels keep together."""
    return sum(each.state.history_length for each in hub.channels())


def test_silent_session_keeps_only_its_newest_message_after_a_while() -> None:
    clock = ManualClock()
    hub = hub_of_sessions(1, clock)
    clock.advance(MAX_AGE_MS / 1000 - 1)
    hub.tick()
    assert kept(hub) == 3
    clock.advance(11)
    hub.tick()
    assert kept(hub) == 1


def test_many_channels_are_visited_over_several_ticks() -> None:
    clock = ManualClock()
    hub = hub_of_sessions(2500, clock)
    clock.advance(MAX_AGE_MS / 1000)
    remaining = []
    for _ in range(4):
        hub.tick()
        remaining.append(kept(hub))
    assert remaining == [5500, 3500, 2500, 2500]


def test_member_that_reads_on_too_late_is_disconnected() -> None:
    clock = ManualClock()
    scheduled: list[Callable[[], None]] = []
    hub = hub_of_sessions(1, clock, scheduled)
    [channel] = hub.channels()
    link = RecordingLink(clog_bytes=10)
    hub.attach("slow", link)
    hub.subscribe("slow", channel, 0)
    link.stall()
    for seq in (4, 5, 6):
        now_ms = int(clock.time() * 1000)
        hub.deliver(Entry(channel.name, Position("e1", seq), now_ms, b'{"id":"%d"}' % seq))
        hub.flush()
    clock.advance(MAX_AGE_MS / 1000)
    hub.tick()
    link.resume()
    for call in scheduled:
        call()
    assert link.ended == ["server.overloaded"]


async def test_stalled_book_is_whole_after_its_old_changes_are_dropped() -> None:
    market = await MarketRig.create(DeliveryConfig(buffer_bytes=400, stalled_seconds=math.inf))
    ann = await market.client("ann", "ORDERBOOK:A")
    await market.book("A", [("10", "1")], [], kind="snapshot")
    market.settle()
    ann.stall()
    for quantity in ("2", "3", "4"):
        await market.book("A", [("10", quantity)], [])
        await market.book("A", [("9", quantity)], [])
        market.settle()
    market.clock.advance(MAX_AGE_MS / 1000)
    market.hub.tick()
    [channel] = market.hub.channels()
    assert channel.state.history_length == 1
    ann.resume()
    market.settle()
    last = ann.messages("orderbook")[-1]
    assert (last["type"], last["data"]["bids"]) == ("snapshot", [["10", "4"], ["9", "4"]])
