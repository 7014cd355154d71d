"""Tests that the packets of a connection are handled in order until it ends."""

import asyncio

import pytest

from server.core.counters import Counters
from server.core.wire.packets import PacketKind, RawPacket
from server.tasks import TaskOwner
from server.transport.fair_queue import FairQueue
from server.transport.inbox import Inbox
from tests.kit.clock import ManualClock

PACKET = RawPacket(PacketKind.EVENT, "/market", None, '["subscriptions"]')


class PacketHandler:
    """A handler that waits for `can_finish`."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.counters = Counters()
        self.inbox = Inbox(self, FairQueue(self.clock, TaskOwner(self.counters)))
        self.is_reading = True
        self.can_finish = asyncio.Event()
        self.clears_inbox = False
        self.failure: Exception | None = None
        self.done = 0
        self.cancelled = 0

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    async def handle(self, packet: RawPacket) -> None:
        if self.clears_inbox:
            self.inbox.close()
        try:
            await self.can_finish.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        self.done += 1


async def test_handler_that_never_suspends_runs_at_once() -> None:
    handler = PacketHandler()
    handler.can_finish.set()
    handler.inbox.put(PACKET)
    assert (handler.done, handler.inbox.busy) == (1, False)


async def test_wait_after_a_cancelled_wait_ends_once_all_is_handled() -> None:
    handler = PacketHandler()
    handler.inbox.put(PACKET)
    abandoned = asyncio.create_task(handler.inbox.wait_idle())
    await asyncio.sleep(0)
    abandoned.cancel()
    await asyncio.wait({abandoned})
    waiting = asyncio.create_task(handler.inbox.wait_idle())
    await asyncio.sleep(0)
    assert not waiting.done()
    handler.can_finish.set()
    await waiting


async def test_clear_cancels_the_handler_and_drops_waiting_packets() -> None:
    handler = PacketHandler()
    for _ in range(3):
        handler.inbox.put(PACKET)
    handler.inbox.close()
    await handler.inbox.wait_idle()
    assert (handler.done, handler.cancelled, handler.inbox.waiting_count) == (0, 1, 0)


async def test_handler_that_clears_its_inbox_is_cancelled() -> None:
    handler = PacketHandler()
    handler.clears_inbox = True
    handler.inbox.put(PACKET)
    async with asyncio.timeout(1):
        await handler.inbox.wait_idle()
    assert (handler.done, handler.cancelled) == (0, 1)


async def reads_on_behind(packets: list[RawPacket]) -> bool:
    """Whether the client is still read while these packets wait."""
    handler = PacketHandler()
    handler.inbox.put(PACKET)
    for packet in packets:
        handler.inbox.put(packet)
    is_reading = handler.is_reading
    handler.can_finish.set()
    await handler.inbox.wait_idle()
    assert (handler.done, handler.is_reading) == (1 + len(packets), True)
    return is_reading


async def test_waiting_packets_are_bounded_in_number_and_size() -> None:
    assert await reads_on_behind([PACKET] * 63)
    assert not await reads_on_behind([PACKET] * 64)
    large = PACKET._replace(body=f'["send",{{"data":"{"x" * 30_000}"}}]')
    assert await reads_on_behind([large] * 2)
    assert not await reads_on_behind([large] * 3)


async def test_handler_that_fails_after_a_wait_is_logged_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = PacketHandler()
    handler.failure = RuntimeError("a bug")
    handler.inbox.put(PACKET)
    handler.can_finish.set()
    await handler.inbox.wait_idle()
    await asyncio.sleep(0)
    assert handler.counters.total("tasks.failed") == 1
    assert [each.exc_info is not None for each in caplog.records] == [True]
