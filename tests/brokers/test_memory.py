"""The memory broker: positions, the latest entry, and who is told."""

import logging

import pytest

from server.brokers import MemoryBroker, MemoryConfig
from server.core.entries import Entry, Position, Receipt
from server.core.errors import FloorcastError
from tests.kit.clock import START, ManualClock


async def started(*, max_channels: int = 100) -> tuple[MemoryBroker, list[Entry]]:
    """A broker and what it delivers."""
    heard: list[Entry] = []
    broker = MemoryBroker(ManualClock(), epoch="e1", config=MemoryConfig(max_channels=max_channels))
    await broker.start(heard.append)
    return broker, heard


async def test_positions_count_from_1_for_each_channel() -> None:
    broker, _ = await started()
    assert await broker.head("A") == Position("e1", 0)
    assert await broker.latest("A") is None
    assert [await broker.publish("A", b"{}", 5) for _ in range(2)] == [
        Receipt(Position("e1", 1), 5),
        Receipt(Position("e1", 2), 5),
    ]
    assert await broker.publish("B", b"{}", 6) == Receipt(Position("e1", 1), 6)
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


@pytest.mark.behaviour("D13")
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
        receipts = [await broker.publish("A", b'"secret"', 1) for _ in range(3)]
    assert [each.position.seq for each in receipts] == [1, 2, 3]
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
    assert await broker.publish("A", b"{}", 1) == Receipt(Position("e1", 2), 1)
    assert await broker.head("B") == Position("e1", 0)


async def test_what_was_published_outlives_a_stop_and_a_start() -> None:
    broker, heard = await started()
    await broker.watch("A")
    await broker.publish("A", b"{}", 1)
    await broker.stop()
    await broker.start(heard.append)
    # Who watched has gone: a new start begins with nobody.
    assert await broker.publish("A", b"{}", 2) == Receipt(Position("e1", 2), 2)
    assert [each.position.seq for each in heard] == [1]


async def with_history(clock: ManualClock) -> MemoryBroker:
    """Three kept messages in A, a second apart, with room for five of ten seconds."""
    config = MemoryConfig(history_messages=5, history_seconds=10.0)
    broker = MemoryBroker(clock, epoch="e1", config=config)
    await broker.start(lambda entry: None)
    for number in range(3):
        clock.advance(1.0)
        ts_ms = int(clock.time() * 1000)
        await broker.publish("A", b"%d" % number, ts_ms, kept=True)
    return broker


async def test_what_was_missed_is_told_exactly_or_not_at_all() -> None:
    clock = ManualClock()
    broker = await with_history(clock)
    missed = await broker.since("A", Position("e1", 1))
    assert [each.position.seq for each in missed or ()] == [2, 3]
    assert await broker.since("A", Position("e1", 3)) == []
    assert await broker.since("A", Position("e1", 4)) is None, "nobody can be ahead"
    assert await broker.since("A", Position("e0", 3)) is None, "that past is lost"
    assert await broker.since("B", Position("e1", 0)) == []
    await broker.publish("B", b"{}", 1)
    assert await broker.since("B", Position("e1", 0)) is None, "it was not kept"
    clock.advance(8.5)
    assert await broker.since("A", Position("e1", 0)) is None, "the first has become too old"
    assert len(await broker.since("A", Position("e1", 1)) or ()) == 2


async def test_the_past_is_read_in_pages_backwards() -> None:
    broker = await with_history(ManualClock())
    assert [each.position.seq for each in await broker.before("A", None, 2)] == [2, 3]
    assert [each.position.seq for each in await broker.before("A", 2, 5)] == [1]
    assert await broker.before("A", 1, 5) == []
    assert await broker.before("B", None, 5) == []


async def test_what_begins_anew_under_a_forgotten_name_has_another_epoch() -> None:
    broker = await with_history(ManualClock())
    await broker.watch("B")
    head = await broker.head("B")
    await broker.forget("A")
    assert await broker.before("A", None, 5) == []
    again = (await broker.publish("A", b"{}", 1)).position
    assert again.seq == 1
    assert again.epoch != "e1"
    assert await broker.since("A", Position("e1", 1)) is None
    first = (await broker.publish("B", b"{}", 1)).position
    assert first.epoch == head.epoch, "what was told of B before is still true"


async def test_what_is_kept_in_all_is_bounded_and_the_silent_go_first() -> None:
    config = MemoryConfig(total_bytes=1000)
    broker = MemoryBroker(ManualClock(), epoch="e1", config=config)
    await broker.start(lambda entry: None)
    now_ms = int(START * 1000)
    for number in range(30):
        for channel in ("A", "B") if number < 15 else ("B",):
            await broker.publish(channel, b"x" * 40, now_ms, kept=True)
    assert await broker.since("A", Position("e1", 14)) is None
    assert await broker.before("A", None, 5) == []
    assert len(await broker.before("B", None, 100)) == 30, "who speaks keeps its own"
    await broker.forget("B")
    await broker.publish("C", b"x" * 40, now_ms, kept=True)
    assert len(await broker.before("C", None, 5)) == 1
