"""Tests that the packets of a connection are handled in order until it ends."""

import asyncio

from server.core.wire.packets import Packet, PacketKind
from server.transport.inbox import Inbox

PACKET = Packet(PacketKind.EVENT, "/market", None, ["subscriptions"])


class PacketHandler:
    """A handler that waits for `can_finish`."""

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


async def test_handler_that_never_suspends_runs_at_once() -> None:
    handler = PacketHandler()
    handler.can_finish.set()
    handler.inbox.put(PACKET)
    assert (handler.done, handler.inbox.busy) == (1, False)


async def test_clear_cancels_the_handler_and_drops_waiting_packets() -> None:
    handler = PacketHandler()
    for _ in range(3):
        handler.inbox.put(PACKET)
    handler.inbox.clear()
    await handler.inbox.wait_idle()
    assert (handler.done, handler.cancelled, handler.inbox.waiting_count) == (0, 1, 0)


async def test_handler_that_clears_its_inbox_is_cancelled() -> None:
    handler = PacketHandler()
    handler.clears_inbox = True
    handler.inbox.put(PACKET)
    async with asyncio.timeout(1):
        await handler.inbox.wait_idle()
    assert (handler.done, handler.cancelled) == (0, 1)
