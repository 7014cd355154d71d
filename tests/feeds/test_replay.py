"""A replay: what was recorded, in its order, as far apart as it was."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError, RequestError
from server.core.log.entries import Position
from server.feeds import FeedError, ReplayFeed
from server.ports import FeedOptions
from tests.feeds.recorded import line, recording
from tests.feeds.tape import FakeSleep, Published, PublishRecorder
from tests.kit.clock import ManualClock


async def play(
    file: str, *, speed: float = 1.0, recorder: PublishRecorder | None = None
) -> list[float]:
    """Play a file to its end; how long it slept each time."""
    clock = ManualClock()
    sleeper = FakeSleep(clock)
    feed = ReplayFeed(FeedOptions(clock, argument=file, speed=speed), sleep=sleeper.sleep)
    await feed.run(PublishRecorder() if recorder is None else recorder)
    return sleeper.sleeps


async def test_everything_a_line_says_is_published(tmp_path: Path) -> None:
    tape = PublishRecorder()
    file = recording(
        tmp_path,
        line(5, topic="ORDERBOOK:B/C", data={"bids": [["1.0", "2"]]}, type="snapshot"),
        line(6, type="update", seq=12, ignored=True),
        line(7, topic="USER_DATA", data={"name": "Zoë"}, user="u 1", org="acme"),
        line(8, topic="USER_DATA", data={}, user="u 1"),
    )
    await play(file, recorder=tape)
    assert tape.messages == [
        Published("ORDERBOOK:B/C", {"bids": [["1.0", "2"]]}, "snapshot"),
        Published("PRICE:A", {"n": 6}),
        Published("USER_DATA", {"name": "Zoë"}, "update", "u 1", "acme"),
        Published("USER_DATA", {}, "update", "u 1", "default"),
    ]


@pytest.mark.parametrize(
    ("speed", "expected"), [(1.0, [0.1, 0.2, 4.0]), (2.0, [0.05, 0.1, 2.0]), (0.5, [0.2, 0.4, 8.0])]
)
async def test_messages_come_as_far_apart_as_they_were_or_by_the_speed(
    tmp_path: Path, speed: float, expected: list[float]
) -> None:
    base = 1_700_000_000_000
    file = recording(tmp_path, *(line(base + ms) for ms in (0, 100, 100, 300, 4300)))
    slept = await play(file, speed=speed)
    assert slept == pytest.approx(expected)


async def test_sleeps_that_take_too_long_do_not_add_up(tmp_path: Path) -> None:
    clock, published_at = ManualClock(), list[float]()
    began = clock.monotonic()

    async def sleep(seconds: float) -> None:
        clock.advance(seconds + 0.03)

    class Watch(PublishRecorder):
        async def publish(
            self,
            topic: str,
            data: Mapping[str, object],
            *,
            kind: str = "update",
            user: str | None = None,
            org: str = "default",
        ) -> Position:
            published_at.append(clock.monotonic() - began)
            return await super().publish(topic, data, kind=kind, user=user, org=org)

    file = recording(tmp_path, *(line(ms) for ms in range(0, 10_000, 100)))
    await ReplayFeed(FeedOptions(clock, argument=file), sleep=sleep).run(Watch())
    assert published_at[-1] == pytest.approx(9.9 + 0.03)


async def test_at_speed_0_it_goes_as_fast_as_it_can_but_lets_others_run(tmp_path: Path) -> None:
    tape = PublishRecorder()
    slept = await play(
        recording(tmp_path, *(line(ms * 1000) for ms in range(1000))), speed=0, recorder=tape
    )
    assert len(tape.messages) == 1000
    assert set(slept) == {0.0}
    assert len(slept) >= 10


async def test_a_task_beside_a_replay_without_pauses_gets_its_turn(tmp_path: Path) -> None:
    file = recording(tmp_path, *(line(1) for _ in range(1000)))
    tape, seen = PublishRecorder(), list[int]()

    async def look() -> None:
        seen.append(len(tape.messages))

    replay = ReplayFeed(FeedOptions(ManualClock(), argument=file, speed=0))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(replay.run(tape), name="replay")
        tasks.create_task(look(), name="look")
    assert 0 < seen[0] < 1000


async def test_two_runs_are_the_same(tmp_path: Path) -> None:
    file = recording(tmp_path, *(line(ms) for ms in range(50)))
    one, again = PublishRecorder(), PublishRecorder()
    assert await play(file, recorder=one) == await play(file, recorder=again)
    assert one.messages == again.messages


async def test_an_empty_recording_is_over_at_once(tmp_path: Path) -> None:
    assert await play(recording(tmp_path)) == []


async def test_a_bad_line_ends_the_replay_when_it_comes_to_it(tmp_path: Path) -> None:
    tape = PublishRecorder()
    file = recording(tmp_path, *(line(ms) for ms in range(500)), "rubbish", line(501))
    with pytest.raises(FeedError, match=":501: "):
        await play(file, recorder=tape)
    assert len(tape.messages) == 500


class SelectiveRecorder(PublishRecorder):
    """Refuses all but every fifth message, for two reasons by turns."""

    def __init__(self) -> None:
        super().__init__()
        self._call_count = 0

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
    ) -> Position:
        self._call_count += 1
        if self._call_count % 5 == 0:
            return await super().publish(topic, data, kind=kind, user=user, org=org)
        if self._call_count % 2:
            raise RequestError(ErrorCode.REQUEST_INVALID, "hush")
        raise LimitError(ErrorCode.LIMIT_PAYLOAD, "hush")


async def test_what_the_server_refuses_is_said_once_a_code_and_the_replay_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tape = SelectiveRecorder()
    file = recording(tmp_path, "", *(line(ms) for ms in range(50)))
    await play(file, recorder=tape)
    assert len(tape.messages) == 10
    said = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert [(vars(each)["line"], vars(each)["code"]) for each in said] == [
        (2, "request.invalid"),
        (3, "limit.payload"),
    ]
    assert {each.getMessage() for each in said} == {"a recorded message was refused"}
    assert {vars(each)["file"] for each in said} == {file}


async def test_any_other_failure_is_not_swallowed(tmp_path: Path) -> None:
    class Broken(PublishRecorder):
        async def publish(self, *_: object, **__: object) -> Position:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await play(recording(tmp_path, line(1)), recorder=Broken())


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(FeedError, match="cannot read"):
        ReplayFeed(FeedOptions(ManualClock(), argument=str(tmp_path / name)))


def test_a_replay_needs_a_file() -> None:
    with pytest.raises(FeedError, match="replay:FILE"):
        ReplayFeed(FeedOptions(ManualClock()))


async def test_a_file_that_went_away_before_the_replay_is_a_feed_error(tmp_path: Path) -> None:
    file = recording(tmp_path, line(1))
    feed = ReplayFeed(FeedOptions(ManualClock(), argument=file))
    Path(file).unlink()
    with pytest.raises(FeedError, match="cannot read"):
        await feed.run(PublishRecorder())


@pytest.mark.parametrize("speed", [-1.0, float("nan"), float("inf")])
def test_a_speed_that_makes_no_sense_is_refused(tmp_path: Path, speed: float) -> None:
    file = recording(tmp_path, line(1))
    with pytest.raises(FeedError, match="speed"):
        ReplayFeed(FeedOptions(ManualClock(), argument=file, speed=speed))
