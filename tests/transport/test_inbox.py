"""Packets of one connection: dealt with at once or in turn, and no longer than it is there."""

import asyncio

from server.core.wire.packets import Packet, PacketKind
from server.transport.inbox import Inbox

PACKET = Packet(PacketKind.EVENT, "/market", None, ["subscriptions"])


class Desk:
    """Deals with packets, and waits while it is told to."""

    def __init__(self) -> None:
        self.inbox = Inbox(self.handle, lambda is_flowing: None)
        self.answer = asyncio.Event()
        self.ends_at_once = False
        self.done = 0
        self.given_up = 0

    async def handle(self, packet: Packet) -> None:
        if self.ends_at_once:
            self.inbox.clear()
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        self.done += 1


async def test_what_has_nothing_to_wait_for_is_done_at_once() -> None:
    desk = Desk()
    desk.answer.set()
    desk.inbox.put(PACKET)
    assert (desk.done, desk.inbox.busy) == (1, False)


async def test_when_the_connection_ends_what_runs_and_what_waits_is_given_up() -> None:
    desk = Desk()
    for _ in range(3):
        desk.inbox.put(PACKET)
    desk.inbox.clear()
    await desk.inbox.settled()
    assert (desk.done, desk.given_up, desk.inbox.waiting_count) == (0, 1, 0)


async def test_a_handler_that_ends_its_own_connection_before_it_waits_is_given_up_too() -> None:
    desk = Desk()
    desk.ends_at_once = True
    desk.inbox.put(PACKET)
    async with asyncio.timeout(1):
        await desk.inbox.settled()
    assert (desk.done, desk.given_up) == (0, 1)
