"""The bounds of the memory broker."""

import pytest

from server.brokers import MemoryBroker, MemoryConfig, MemoryKeptValues
from server.core.errors import FloorcastError, LimitError
from server.core.kept import KeptLimits
from server.core.limits.shares import Owner
from server.core.log.entries import Entry, Position, Receipt
from server.core.log.history import HistoryBounds
from server.core.sessions.histories import HistoryRules
from tests.kit.clock import START, ManualClock


async def started(*, max_channels: int = 100) -> tuple[MemoryBroker, list[Entry]]:
    """A started broker and the list of its deliveries."""
    delivered: list[Entry] = []
    broker = MemoryBroker(ManualClock(), epoch="e1", config=MemoryConfig(max_channels=max_channels))
    await broker.start(delivered.append)
    return broker, delivered


async def test_number_of_channels_is_bounded() -> None:
    broker, _ = await started(max_channels=2)
    for channel in ("A", "B", "A"):
        await broker.publish(channel, b"{}", 1)
    with pytest.raises(FloorcastError) as refused:
        await broker.publish("C", b"{}", 1)
    assert refused.value.code == "server.overloaded"


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


async def test_full_broker_accepts_messages_of_known_channels() -> None:
    broker, _ = await started(max_channels=1)
    await broker.publish("A", b"{}", 1)
    with pytest.raises(FloorcastError):
        await broker.publish("B", b"{}", 1)
    assert await broker.publish("A", b"{}", 1) == Receipt(Position("e1", 2), 1)
    assert await broker.head("B") == Position("e1", 0)


async def test_total_history_is_bounded_and_idle_channels_go_first() -> None:
    config = MemoryConfig(histories=HistoryRules(HistoryBounds(total_bytes=1000)))
    broker = MemoryBroker(ManualClock(), epoch="e1", config=config)
    await broker.start(lambda entry: None)
    now_ms = int(START * 1000)
    for number in range(30):
        for channel in ("A", "B") if number < 15 else ("B",):
            await broker.publish(channel, b"x" * 40, now_ms, in_history=True)
    assert await broker.since("A", Position("e1", 14)) is None
    assert await broker.before("A", None, 5) == []
    assert len(await broker.before("B", None, 100)) == 30, "an active channel keeps its history"
    await broker.forget("B")
    await broker.publish("C", b"x" * 40, now_ms, in_history=True)
    assert len(await broker.before("C", None, 5)) == 1


async def test_one_org_never_pushes_out_the_history_of_another() -> None:
    broker = MemoryBroker(
        ManualClock(),
        epoch="e1",
        config=MemoryConfig(histories=HistoryRules(HistoryBounds(total_bytes=2_000))),
    )
    await broker.start(lambda entry: None)
    now_ms = int(START * 1000)
    small, large = Owner("small", "ann"), Owner("large", "eve")
    await broker.publish("kept", b"x" * 40, now_ms, in_history=True, owner=small)
    for number in range(200):
        channel = f"flood{number}"
        await broker.publish(channel, b"x" * 40, now_ms, in_history=True, owner=large)
    assert len(await broker.before("kept", None, 5)) == 1
    assert await broker.before("flood100", None, 5) == []
    assert len(await broker.before("flood199", None, 5)) == 1


async def test_org_drops_its_own_longest_silent_history() -> None:
    broker = MemoryBroker(ManualClock(), epoch="e1", config=MemoryConfig(org_bytes=100))
    await broker.start(lambda entry: None)
    now_ms = int(START * 1000)
    for channel, org in (("A", "acme"), ("B", "acme"), ("C", "other"), ("D", "acme")):
        owner = Owner(org, channel)
        await broker.publish(channel, b"x" * 40, now_ms, in_history=True, owner=owner)
    kept = [channel for channel in "ABCD" if await broker.before(channel, None, 5)]
    assert kept == ["B", "C", "D"]
    # The message just published stays, whatever its size.
    await broker.publish("E", b"x" * 200, now_ms, in_history=True, owner=Owner("acme", "E"))
    assert len(await broker.before("E", None, 5)) == 1


async def test_small_kind_finds_room_whatever_others_keep() -> None:
    kept = MemoryKeptValues(ManualClock(), KeptLimits(total_bytes=100, reserve_bytes=40))
    await kept.put("candles", {"a": b"x" * 98}, expires_at=1e12)
    with pytest.raises(LimitError):
        await kept.put("candles", {"b": b"x" * 10}, expires_at=1e12)
    await kept.put("revocations", {"a": b"x" * 29}, expires_at=1e12)
    with pytest.raises(LimitError):
        await kept.put("revocations", {"b": b"x" * 30}, expires_at=1e12)
    await kept.delete("candles", "a")
    await kept.put("revocations", {"b": b"x" * 30}, expires_at=1e12)
