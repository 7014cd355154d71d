"""A recording has positions and times, and every replay publishes the same messages."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from client_sdk.contract import Stream
from client_sdk.data import ParquetSink
from client_sdk.tools.options import UsageError
from client_sdk.tools.recording import read_recording as read_file
from server.feeds.recording import read_recording
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running
from tests.sdk.test_data import TRADES, message
from tests.sdk.tools.commands import environ_of, run

TOPICS = ("TRADES:A", "ORDERBOOK:A", "PRICE:A")


async def publish_market(node: RunningServer) -> None:
    """Publish some messages of each stream."""
    publish = node.server.market.publishing.publish
    await publish("ORDERBOOK:A", {"bids": [["9", "1"]], "asks": [["10", "1"]]}, kind="snapshot")
    for number in range(1, 4):
        trade = {"id": number, "price": "9.5", "qty": "1", "side": "buy", "ts": number}
        await publish("TRADES:A", {"trades": [trade]})
        await publish("ORDERBOOK:A", {"bids": [["9", str(number + 1)]], "asks": []})
        node.clock.advance(0.002)
    await publish("PRICE:A", PRICE)


async def record(node: RunningServer, file: Path, count: int) -> asyncio.Task[int]:
    """Start to record; returns once the topics are subscribed."""
    words = ("record", *TOPICS, "--output", str(file), "--count", str(count))
    task = asyncio.create_task(run(environ_of(node), *words))
    await until(lambda: node.server.delivery.hub.topic_count == len(TOPICS))
    return task


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def recorded_market(file: Path) -> list[dict[str, Any]]:
    """Record a market; returns the lines."""
    async with running() as node:
        recording = await record(node, file, 8)
        await publish_market(node)
        assert await recording == 0
    return lines_of(file)


async def test_recording_has_positions_and_times(tmp_path: Path) -> None:
    lines = await recorded_market(tmp_path / "one.jsonl")
    trades = [each for each in lines if each["topic"] == "TRADES:A"]
    assert [(each["type"], each["seq"]) for each in trades] == [
        ("update", 1),
        ("update", 2),
        ("update", 3),
    ]
    assert all(each["epoch"] for each in lines)
    times = [each["ts"] for each in lines]
    assert times == sorted(times)
    # The server's own feed plays it too.
    assert len(list(read_recording(tmp_path / "one.jsonl"))) == 8


async def test_two_replays_publish_the_same_messages(tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    await recorded_market(file)
    replays = []
    for name in ("two.jsonl", "three.jsonl"):
        async with running() as node:
            recording = await record(node, tmp_path / name, 8)
            assert await run(environ_of(node), "replay", str(file), "--flat-out") == 0
            assert await recording == 0
        kept = [
            {key: each[key] for key in ("topic", "type", "seq", "data")}
            for each in lines_of(tmp_path / name)
        ]
        replays.append(sorted(kept, key=lambda each: (each["topic"], each["seq"])))
    assert replays[0] == replays[1]
    assert len(replays[0]) == 8


async def test_repeated_replay_publishes_nothing_twice(tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    await recorded_market(file)
    async with running() as node:
        for _ in range(2):
            assert await run(environ_of(node), "replay", str(file), "--once", "--flat-out") == 0
        trade = {"id": 4, "price": "9.5", "qty": "1", "side": "buy", "ts": 4}
        position = await node.server.market.publishing.publish("TRADES:A", {"trades": [trade]})
        assert position.seq == 4


async def test_refused_messages_of_a_replay_fail_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"ts": 1, "topic": "PRICE:A", "data": {"last": "many"}}\n')
    async with running() as node:
        assert await run(environ_of(node), "replay", str(file)) == 1
    assert "0 of 1 messages published\n1 refused: " in capsys.readouterr().err


@pytest.mark.parametrize("line", ["{", "[]", '{"ts": 1}', '{"ts": "x", "topic": "A", "data": {}}'])
async def test_malformed_recording_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(f"\n{line}\n")
    with pytest.raises(UsageError, match=r"bad\.jsonl:2: no recorded message"):
        await run({"FLOORCAST_TOKEN": "t"}, "replay", str(file))


async def test_recording_never_overwrites_a_file(tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    file.write_text("mine")
    with pytest.raises(UsageError, match="exists: name another file"):
        await run({}, "record", "PRICE:A", "--output", str(file))
    assert file.read_text() == "mine"


async def test_parquet_file_is_published(tmp_path: Path) -> None:
    file = tmp_path / "trades.parquet"
    with ParquetSink(file, exact=True) as sink:
        for seq in (1, 2, 3):
            sink.add(message(Stream.TRADES, seq, TRADES))
    async with running() as node:
        for _ in range(2):
            assert await run(environ_of(node), "replay", str(file), "--flat-out", "--once") == 0
        head = await node.server.backend.broker.head("TRADES:A")
    assert head.seq == 3, "once"


async def test_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"none")
    with pytest.raises(UsageError, match=r"cannot read .*x\.parquet"):
        list(read_file(tmp_path / "x.parquet"))
