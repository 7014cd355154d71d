"""Tests the replay feed."""

import asyncio
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from client_sdk.contract import ErrorCode, Stream
from client_sdk.data import ParquetSink
from server.core.errors import LimitError, RequestError
from server.core.log.entries import Position
from server.feeds import FeedError, ReplayFeed
from server.ports import FeedOptions
from tests.feeds.recorded import line, recording
from tests.feeds.tape import FakeSleep, Published, PublishRecorder
from tests.kit.clock import ManualClock
from tests.sdk.test_data import message


async def play(
    file: str, *, speed: float = 1.0, recorder: PublishRecorder | None = None
) -> list[float]:
    """Replay a file to its end; return its sleeps."""
    clock = ManualClock()
    sleeper = FakeSleep(clock)
    feed = ReplayFeed(FeedOptions(clock, argument=file, speed=speed), sleep=sleeper.sleep)
    await feed.run(PublishRecorder() if recorder is None else recorder)
    return sleeper.sleeps


async def test_every_field_of_a_line_is_published(tmp_path: Path) -> None:
    recorder = PublishRecorder()
    file = recording(
        tmp_path,
        line(5, topic="ORDERBOOK:B/C", data={"bids": [["1.0", "2"]]}, type="snapshot"),
        line(6, type="update", seq=12, ignored=True),
        line(7, topic="USER_DATA", data={"name": "Zoë"}, user="u 1", org="acme"),
        line(8, topic="USER_DATA", data={}, user="u 1"),
    )
    await play(file, recorder=recorder)
    assert recorder.messages == [
        Published("ORDERBOOK:B/C", {"bids": [["1.0", "2"]]}, "snapshot"),
        Published("PRICE:A", {"n": 6}),
        Published("USER_DATA", {"name": "Zoë"}, "update", "u 1", "acme"),
        Published("USER_DATA", {}, "update", "u 1", "default"),
    ]


@pytest.mark.parametrize(
    ("speed", "expected"), [(1.0, [0.1, 0.2, 4.0]), (2.0, [0.05, 0.1, 2.0]), (0.5, [0.2, 0.4, 8.0])]
)
async def test_replay_keeps_the_intervals_scaled_by_speed(
    tmp_path: Path, speed: float, expected: list[float]
) -> None:
    base = 1_700_000_000_000
    file = recording(tmp_path, *(line(base + ms) for ms in (0, 100, 100, 300, 4300)))
    slept = await play(file, speed=speed)
    assert slept == pytest.approx(expected)


async def test_late_sleeps_do_not_add_up(tmp_path: Path) -> None:
    clock, published_at = ManualClock(), list[float]()
    started_at = clock.monotonic()

    async def sleep(seconds: float) -> None:
        clock.advance(seconds + 0.03)

    class TimingRecorder(PublishRecorder):
        async def publish(self, topic: str, data: Mapping[str, object], **fields: Any) -> Position:
            published_at.append(clock.monotonic() - started_at)
            return await super().publish(topic, data, **fields)

    file = recording(tmp_path, *(line(ms) for ms in range(0, 10_000, 100)))
    await ReplayFeed(FeedOptions(clock, argument=file), sleep=sleep).run(TimingRecorder())
    assert published_at[-1] == pytest.approx(9.9 + 0.03)


async def test_replay_at_speed_0_yields_to_other_tasks(tmp_path: Path) -> None:
    recorder = PublishRecorder()
    slept = await play(
        recording(tmp_path, *(line(ms * 1000) for ms in range(1000))), speed=0, recorder=recorder
    )
    assert len(recorder.messages) == 1000
    assert set(slept) == {0.0}
    assert len(slept) >= 10


async def test_other_task_runs_during_a_replay_without_pauses(tmp_path: Path) -> None:
    file = recording(tmp_path, *(line(1) for _ in range(1000)))
    recorder, counts = PublishRecorder(), list[int]()

    async def count_messages() -> None:
        counts.append(len(recorder.messages))

    replay = ReplayFeed(FeedOptions(ManualClock(), argument=file, speed=0))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(replay.run(recorder), name="replay")
        tasks.create_task(count_messages(), name="look")
    assert 0 < counts[0] < 1000


async def test_two_replays_are_equal(tmp_path: Path) -> None:
    file = recording(tmp_path, *(line(ms) for ms in range(50)))
    one, second = PublishRecorder(), PublishRecorder()
    assert await play(file, recorder=one) == await play(file, recorder=second)
    assert one.messages == second.messages


async def test_empty_recording_ends_at_once(tmp_path: Path) -> None:
    assert await play(recording(tmp_path)) == []


async def test_malformed_line_ends_the_replay_at_that_line(tmp_path: Path) -> None:
    recorder = PublishRecorder()
    file = recording(tmp_path, *(line(ms) for ms in range(500)), "rubbish", line(501))
    with pytest.raises(FeedError, match=":501: "):
        await play(file, recorder=recorder)
    assert len(recorder.messages) == 500


class SelectiveRecorder(PublishRecorder):
    """Records every fifth message, and refuses the others for two reasons in turn."""

    def __init__(self) -> None:
        super().__init__()
        self._call_count = 0

    async def publish(self, topic: str, data: Mapping[str, object], **fields: Any) -> Position:
        self._call_count += 1
        if self._call_count % 5 == 0:
            return await super().publish(topic, data, **fields)
        if self._call_count % 2:
            raise RequestError(ErrorCode.REQUEST_INVALID, "hush")
        raise LimitError(ErrorCode.LIMIT_PAYLOAD, "hush")


async def test_refused_message_is_logged_once_per_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = SelectiveRecorder()
    file = recording(tmp_path, "", *(line(ms) for ms in range(50)))
    await play(file, recorder=recorder)
    assert len(recorder.messages) == 10
    warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert [(vars(each)["line"], vars(each)["code"]) for each in warnings] == [
        (2, "request.invalid"),
        (3, "limit.payload"),
    ]
    assert {each.getMessage() for each in warnings} == {"a recorded message was refused"}
    assert {vars(each)["file"] for each in warnings} == {file}


async def test_replay_raises_unexpected_errors(tmp_path: Path) -> None:
    class Broken(PublishRecorder):
        async def publish(self, *_: object, **__: object) -> Position:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await play(recording(tmp_path, line(1)), recorder=Broken())


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_unreadable_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(FeedError, match="cannot read"):
        ReplayFeed(FeedOptions(ManualClock(), argument=str(tmp_path / name)))


def test_replay_needs_a_file() -> None:
    with pytest.raises(FeedError, match="replay:FILE"):
        ReplayFeed(FeedOptions(ManualClock()))


async def test_file_deleted_before_the_replay_raises_feed_error(tmp_path: Path) -> None:
    file = recording(tmp_path, line(1))
    feed = ReplayFeed(FeedOptions(ManualClock(), argument=file))
    Path(file).unlink()
    with pytest.raises(FeedError, match="cannot read"):
        await feed.run(PublishRecorder())


@pytest.mark.parametrize("speed", [-1.0, float("nan"), float("inf")])
def test_invalid_speed_is_refused(tmp_path: Path, speed: float) -> None:
    file = recording(tmp_path, line(1))
    with pytest.raises(FeedError, match="speed"):
        ReplayFeed(FeedOptions(ManualClock(), argument=file, speed=speed))


async def test_parquet_file_is_published_as_it_was_received(tmp_path: Path) -> None:
    path = tmp_path / "book.parquet"
    with ParquetSink(path, exact=True) as sink:
        for seq, kind in ((1, "snapshot"), (2, "update")):
            levels = {"bids": [["1.50", str(seq)]], "asks": []}
            sink.add(message(Stream.ORDERBOOK, seq, levels, type=kind, ts=1_000 * seq))
    recorder = PublishRecorder()
    assert await play(str(path), recorder=recorder) == [1.0]
    assert recorder.messages == [
        Published("ORDERBOOK:A", {"bids": [["1.50", "1"]], "asks": []}, "snapshot"),
        Published("ORDERBOOK:A", {"bids": [["1.50", "2"]], "asks": []}, "update"),
    ]


async def test_malformed_parquet_file_ends_the_feed(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"no such thing")
    with pytest.raises(FeedError, match=r"x\.parquet: message 1"):
        await play(str(path))


def test_parquet_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(FeedError, match=r"pip install 'floorcast\[parquet\]'"):
        ReplayFeed(FeedOptions(ManualClock(), argument=str(path)))
