"""The memory broker: positions, the latest entry, and who is told."""

import pytest

from server.brokers import MemoryBroker
from server.core.errors import FloorcastError
from server.ports import Entry, Position


async def started(**options: int) -> tuple[MemoryBroker, list[Entry]]:
    """A broker and what it delivers."""
    heard: list[Entry] = []
    broker = MemoryBroker(epoch="e1", **options)
    await broker.start(heard.append)
    return broker, heard


async def test_positions_count_from_1_for_each_channel() -> None:
    broker, _ = await started()
    assert await broker.head("A") == Position("e1", 0)
    assert await broker.latest("A") is None
    assert [await broker.publish("A", b"{}", 5) for _ in range(2)] == [
        Position("e1", 1),
        Position("e1", 2),
    ]
    assert await broker.publish("B", b"{}", 6) == Position("e1", 1)
    assert await broker.head("A") == Position("e1", 2)
    assert await broker.latest("B") == Entry("B", Position("e1", 1), 6, b"{}")


async def test_watched_channels_are_heard_in_order_and_others_are_not() -> None:
    broker, heard = await started()
    await broker.watch("A")
    for channel in ("A", "B", "A"):
        await broker.publish(channel, b"{}", 1)
    await broker.unwatch("A")
    await broker.unwatch("nothing")
    await broker.publish("A", b"{}", 1)
    assert [(each.channel, each.position.seq) for each in heard] == [("A", 1), ("A", 2)]


async def test_a_stopped_broker_takes_nothing() -> None:
    broker, heard = await started()
    await broker.watch("A")
    await broker.stop()
    with pytest.raises(FloorcastError, match="stopped"):
        await broker.publish("A", b"{}", 1)
    assert heard == []


async def test_the_number_of_channels_is_bounded() -> None:
    broker, _ = await started(max_channels=2)
    for channel in ("A", "B", "A"):
        await broker.publish(channel, b"{}", 1)
    with pytest.raises(FloorcastError) as refused:
        await broker.publish("C", b"{}", 1)
    assert refused.value.code == "server.overloaded"
