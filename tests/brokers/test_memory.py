"""The memory broker: positions, the latest entry, and who is told."""

import logging

import pytest

from server.brokers import MemoryBroker
from server.core.entries import Entry, Position
from server.core.errors import FloorcastError
from tests.kit.clock import ManualClock


async def started(*, max_channels: int = 100) -> tuple[MemoryBroker, list[Entry]]:
    """A broker and what it delivers."""
    heard: list[Entry] = []
    broker = MemoryBroker(ManualClock(), epoch="e1", max_channels=max_channels)
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


async def test_a_delivery_that_fails_takes_nothing_back_from_the_publisher(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[int] = []

    def deliver(entry: Entry) -> None:
        if entry.position.seq < 3:
            raise RuntimeError(f"cannot take {entry.data!r}")
        heard.append(entry.position.seq)

    broker = MemoryBroker(ManualClock(), epoch="e1")
    await broker.start(deliver)
    await broker.watch("A")
    with caplog.at_level(logging.ERROR):
        positions = [await broker.publish("A", b'"secret"', 1) for _ in range(3)]
    assert [each.seq for each in positions] == [1, 2, 3]
    assert heard == [3]
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


async def test_each_kind_of_failing_delivery_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = iter([KeyError("a"), ValueError("b"), KeyError("c")])

    def deliver(entry: Entry) -> None:
        raise next(failures)

    broker = MemoryBroker(ManualClock(), epoch="e1")
    await broker.start(deliver)
    await broker.watch("A")
    for _ in range(3):
        await broker.publish("A", b"{}", 1)
    assert [getattr(each, "error", None) for each in caplog.records] == ["KeyError", "ValueError"]


async def test_a_full_broker_still_takes_what_belongs_to_a_known_channel() -> None:
    broker, _ = await started(max_channels=1)
    await broker.publish("A", b"{}", 1)
    with pytest.raises(FloorcastError):
        await broker.publish("B", b"{}", 1)
    assert await broker.publish("A", b"{}", 1) == Position("e1", 2)
    assert await broker.head("B") == Position("e1", 0)


async def test_what_was_published_outlives_a_stop_and_a_start() -> None:
    broker, heard = await started()
    await broker.watch("A")
    await broker.publish("A", b"{}", 1)
    await broker.stop()
    await broker.start(heard.append)
    # Who watched has gone: a new start begins with nobody.
    assert await broker.publish("A", b"{}", 2) == Position("e1", 2)
    assert [each.position.seq for each in heard] == [1]
