"""Packets of one connection: dealt with at once or in turn, and no longer than it is there."""

import asyncio

from server.core.wire.packets import Packet, PacketKind
from server.transport.inbox import Inbox

PACKET = Packet(PacketKind.EVENT, "/market", None, ["subscriptions"])


class PacketHandler:
    """Deals with packets, and waits while it is told to."""

    def __init__(self) -> None:
        self.inbox = Inbox(self.handle, lambda is_flowing: None)
        self.can_finish = asyncio.Event()
        self.clears_inbox = False
        self.done = 0
        self.cancelled = 0

    async def handle(self, packet: Packet) -> None:
        if self.clears_inbox:
            self.inbox.clear()
        try:
            await self.can_finish.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.done += 1


async def test_what_has_nothing_to_wait_for_is_done_at_once() -> None:
    desk = PacketHandler()
    desk.can_finish.set()
    desk.inbox.put(PACKET)
    assert (desk.done, desk.inbox.busy) == (1, False)


async def test_when_the_connection_ends_what_runs_and_what_waits_is_given_up() -> None:
    desk = PacketHandler()
    for _ in range(3):
        desk.inbox.put(PACKET)
    desk.inbox.clear()
    await desk.inbox.wait_idle()
    assert (desk.done, desk.cancelled, desk.inbox.waiting_count) == (0, 1, 0)


async def test_a_handler_that_ends_its_own_connection_before_it_waits_is_given_up_too() -> None:
    desk = PacketHandler()
    desk.clears_inbox = True
    desk.inbox.put(PACKET)
    async with asyncio.timeout(1):
        await desk.inbox.wait_idle()
    assert (desk.done, desk.cancelled) == (0, 1)
