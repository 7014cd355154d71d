"""Tests that events of one connection wait for each other only if their order matters."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from server.brokers import MemoryBroker
from server.core.log.entries import Receipt
from server.ports import ApplicationBackend
from tests.kit.clients.wire import RawClient
from tests.kit.clock import ManualClock
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running


class HeldBroker(MemoryBroker):
    """A memory broker whose publishes wait until their channel is released."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, epoch="e1")
        self.waiting: list[str] = []
        self._held: dict[str, asyncio.Future[None]] = {}

    async def publish(self, channel: str, *args: Any, **options: Any) -> Receipt:
        held = self._held.setdefault(channel, asyncio.get_running_loop().create_future())
        self.waiting.append(channel.rpartition("\0")[2])
        try:
            await asyncio.shield(held)
        finally:
            self.waiting.remove(channel.rpartition("\0")[2])
        return await super().publish(channel, *args, **options)

    def release(self, name: str) -> None:
        """Finish the publish of a channel that waits."""
        [channel] = [each for each in self._held if each.endswith(name)]
        self._held.pop(channel).set_result(None)


@asynccontextmanager
async def held_server() -> AsyncIterator[tuple[RunningServer, HeldBroker, RawClient]]:
    """A server whose broker holds every publish, and a client of it."""
    clock = ManualClock()
    broker = HeldBroker(clock)
    settings = {"limits.events_per_second": 0}
    async with running(settings, backend=ApplicationBackend(broker), clock=clock) as node:
        client = await RawClient.connect(node.port, node.token())
        yield node, broker, client
        client.cut()
        await node.until_empty()
        # Each cancelled handler ends in a turn of the loop of its own.
        await until(lambda: broker.waiting == [])


def publish(client: RawClient, number: int, *symbols: str) -> None:
    """Publish to these symbols in one event."""
    messages = ",".join(f'{{"topic":"PRICE:{each}","data":{_PRICE}}}' for each in symbols)
    client.send(f'42/market,{number}["publish",{{"messages":[{messages}]}}]')


_PRICE = "{" + ",".join(f'"{name}":"{value}"' for name, value in PRICE.items()) + "}"


async def answers(client: RawClient, *numbers: int) -> None:
    """Read these acks, in this order."""
    for number in numbers:
        text = await client.text()
        assert text.startswith(f'43/market,{number}[{{"ok":true'), text


async def test_publish_does_not_wait_for_another_topic() -> None:
    async with held_server() as (_, broker, client):
        publish(client, 1, "A")
        publish(client, 2, "B")
        await until(lambda: len(broker.waiting) == 2)
        broker.release("B")
        await answers(client, 2)
        broker.release("A")
        await answers(client, 1)


async def test_publishes_to_one_topic_keep_their_order() -> None:
    async with held_server() as (_, broker, client):
        publish(client, 1, "A")
        publish(client, 2, "B", "A")
        publish(client, 3, "C")
        await until(lambda: len(broker.waiting) == 2)
        assert sorted(each[-1] for each in broker.waiting) == ["A", "C"]
        broker.release("A")
        await answers(client, 1)
        await until(lambda: len(broker.waiting) == 2)
        broker.release("B")
        await until(lambda: broker.waiting[-1].endswith("A"))
        broker.release("A")
        await answers(client, 2)
        broker.release("C")
        await answers(client, 3)


async def test_event_about_everything_waits_for_all_before_it() -> None:
    async with held_server() as (_, broker, client):
        publish(client, 1, "A")
        publish(client, 2, "B")
        client.send('42/market,3["subscriptions"]')
        publish(client, 4, "C")
        await until(lambda: len(broker.waiting) == 2)
        broker.release("B")
        await answers(client, 2)
        assert len(broker.waiting) == 1, "an event has overtaken `subscriptions`"
        broker.release("A")
        await answers(client, 1, 3)
        await until(lambda: len(broker.waiting) == 1)
        broker.release("C")
        await answers(client, 4)


async def test_sender_that_leaves_a_namespace_gets_its_acks_first() -> None:
    async with held_server() as (_, broker, client):
        publish(client, 1, "A")
        client.send("41/market,")
        await until(lambda: len(broker.waiting) == 1)
        broker.release("A")
        await answers(client, 1)


async def test_overlapping_events_of_a_connection_are_bounded() -> None:
    async with held_server() as (node, broker, client):
        for number in range(1, 31):
            publish(client, number, f"S{number}")
        # Sixteen that overlap, and one that waits for them with the packets behind it.
        await until(lambda: len(broker.waiting) == 17)
        [connection] = node.server.sockets.connections()
        await until(lambda: connection.waiting_count == 13)
        broker.release("S1")
        await answers(client, 1)


async def test_events_that_are_large_together_do_not_overlap() -> None:
    async with held_server() as (node, broker, client):
        for number, symbol in enumerate("ABC", 1):
            publish(client, number, *([symbol] * 400))
        [connection] = node.server.sockets.connections()
        await until(lambda: connection.waiting_count == 1)
        assert len(broker.waiting) == 2


async def test_end_of_the_connection_cancels_all_its_events() -> None:
    async with held_server() as (_, broker, client):
        for number, symbol in enumerate("ABC", 1):
            publish(client, number, symbol)
        await until(lambda: len(broker.waiting) == 3)
