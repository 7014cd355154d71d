"""A file is read as a live market: the same messages, in one time for all readers."""

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from client_sdk.contract import AnyMessage, Position, Stream, TradesMessage
from client_sdk.data import Item, ParquetSink
from client_sdk.errors import InvalidData
from client_sdk.market.live_book import BookStatus
from client_sdk.reading.gaps import Gap, GapReason
from client_sdk.replay import Replay, ReplayStuck, read_messages
from tests.sdk.test_data import PRICE, message

START_MS = 1_800_000_000_000
HOLE = Gap("TRADES:A", "e1", 3, 4, GapReason.HISTORY)


def trade(seq: int, at_ms: int, price: str = "1.10", **fields: object) -> AnyMessage:
    one = {"id": str(seq), "price": price, "qty": "2.50", "side": "buy", "ts": at_ms}
    return message(Stream.TRADES, seq, {"trades": [one]}, ts=START_MS + at_ms, **fields)


def book(seq: int, at_ms: int, bid: str, kind: str = "update") -> AnyMessage:
    data = {"bids": [[bid, "1"]], "asks": [["10", "1"]] if kind == "snapshot" else []}
    return message(Stream.ORDERBOOK, seq, data, ts=START_MS + at_ms, type=kind)


def price(seq: int, at_ms: int, last: str) -> AnyMessage:
    return message(Stream.PRICE, seq, {**PRICE, "last": last}, ts=START_MS + at_ms)


def parquet(path: Path, items: Iterable[Item], *, exact: bool = True) -> Path:
    with ParquetSink(path, exact=exact) as sink:
        for each in items:
            sink.add(each)
    return path


TRADES = [trade(1, 10), trade(2, 20), HOLE, trade(5, 50)]
BOOK = [book(1, 5, "7", "snapshot"), book(2, 15, "8"), book(3, 45, "9")]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return parquet(tmp_path / "t.parquet", TRADES), parquet(tmp_path / "b.parquet", BOOK)


@pytest.mark.parametrize(
    "items",
    [
        TRADES,
        [*BOOK, book(4, 60, "0.5", "snapshot")],
        [price(1, 1, "1.500"), price(2, 2, "2")],
        [message(Stream.PRICE, 1, {**PRICE, "mark": "7", "tags": ["a"]})],
        [message(Stream.ORDERBOOK, 1, {"bids": [], "asks": []}, type="snapshot")],
        [message(Stream.ORDER_UPDATES, 1, {"order_id": "7", "mine": {"deep": [1]}})],
        [
            message(
                Stream.TRADES,
                3,
                {"bars": [{**dict.fromkeys("ohlcv", "1.0"), "t": 60, "n": 2, "closed": True}]},
                view="1m",
            )
        ],
    ],
    ids=["trades", "book", "prices", "more fields", "empty book", "private", "candles"],
)
def test_exact_parquet_file_gives_the_messages_that_were_written(
    tmp_path: Path, items: list[Item]
) -> None:
    assert list(read_messages(parquet(tmp_path / "x.parquet", items))) == items


def test_floats_become_their_shortest_digits(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", [trade(1, 1, "0.1"), trade(2, 2, "3")], exact=False)
    found = [each for each in read_messages(path) if isinstance(each, TradesMessage)]
    assert [each.data.trades[0].price for each in found] == ["0.1", "3"]


def test_table_of_your_own_needs_no_positions(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    columns = {"trade_id": ["a", "b"], "price": [1.5, 2.5], "qty": [1, 2], "side": ["buy", "sell"]}
    table = pyarrow.table(
        {"topic": ["TRADES:A"] * 2, "ts": [START_MS, START_MS + 1], "trade_ts": [1, 2], **columns}
    )
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "own.parquet")
    first, second = read_messages(tmp_path / "own.parquet")
    assert not isinstance(second, Gap)
    assert (first.epoch, second.seq, second.prev, second.ts) == ("file", 2, 1, START_MS + 1)


def test_malformed_file_is_named_with_the_message(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"topic": "PRICE:A", "ts": 1, "data": PRICE}) + '\n{"topic": "P"}\n')
    with pytest.raises(InvalidData, match=r"x\.jsonl: message 2: no 'ts'"):
        list(read_messages(path))
    (tmp_path / "x.parquet").write_bytes(b"none")
    with pytest.raises(InvalidData, match="message 1"):
        list(read_messages(tmp_path / "x.parquet"))


async def test_stream_of_several_files_is_in_the_order_of_time(files: tuple[Path, Path]) -> None:
    async with Replay(*files) as replay:
        stream = replay.market.stream("TRADES:A", "ORDERBOOK:*")
        found = [item async for item in stream]
        assert stream.checkpoint["TRADES:A"] == Position(epoch="e1", seq=5)
    kinds = [each.topic if isinstance(each, Gap) else (each.stream, each.seq) for each in found]
    assert kinds == [
        (Stream.ORDERBOOK, 1),
        (Stream.TRADES, 1),
        (Stream.ORDERBOOK, 2),
        (Stream.TRADES, 2),
        "TRADES:A",
        (Stream.ORDERBOOK, 3),
        (Stream.TRADES, 5),
    ]


async def test_book_is_that_of_the_moment_of_each_trade(files: tuple[Path, Path]) -> None:
    seen: list[Any] = []
    async with Replay(*files) as replay:
        live = replay.market.book("A")
        assert live.status is BookStatus.SYNCING
        async for item in replay.market.trades("A"):
            now = (live.best_bid, replay.now.microsecond)
            seen.append((None if isinstance(item, Gap) else (item.seq, item.age), *now))
        assert live.best_bid == Decimal(9)
    assert seen == [
        ((1, 0.0), 7, 10_000),
        ((2, 0.0), 8, 20_000),
        (None, 8, 20_000),
        ((5, 0.0), 9, 50_000),
    ]


async def test_book_gives_each_of_its_states(files: tuple[Path, Path]) -> None:
    async with Replay(files[1]) as replay, replay.market.book("A") as live:
        states = [(now.best_bid, now.status) async for now in live]
    assert states == [(Decimal(each), BookStatus.LIVE) for each in (7, 8, 9)]


async def test_tasks_that_read_side_by_side_see_the_same_time(tmp_path: Path) -> None:
    trades = parquet(tmp_path / "t.parquet", [trade(each, 10 * each) for each in range(1, 40)])
    prices = [price(each, 10 * each + 5, "1") for each in range(1, 40)]
    log: list[int] = []
    async with Replay(trades, parquet(tmp_path / "p.parquet", prices)) as replay:

        async def read(stream: Any, turns: int) -> None:
            async for item in stream:
                for _ in range(turns):
                    await asyncio.sleep(0)
                log.append(item.ts)

        market = replay.market
        slow, fast = market.trades("A"), market.prices("A")
        await asyncio.gather(read(slow, 7), read(fast, 0))
    assert len(log) == 78
    assert log == sorted(log)


async def test_stream_that_nobody_reads_is_named(files: tuple[Path, Path]) -> None:
    async with Replay(*files, stuck_seconds=0.01) as replay:
        unread = replay.market.trades("A")
        with pytest.raises(ReplayStuck, match="nobody reads the stream of TRADES:A"):
            async for _ in replay.market.stream("ORDERBOOK:A"):
                pass
        unread.close()
        assert len([each async for each in replay.market.stream("ORDERBOOK:A")]) == 2


async def test_reading_begins_after_a_checkpoint_or_at_a_time(files: tuple[Path, Path]) -> None:
    for since in (Position(epoch="e1", seq=2), datetime.fromtimestamp(START_MS / 1000 + 0.03, UTC)):
        async with Replay(files[0]) as replay:
            found = [each async for each in replay.market.trades("A", since=since)]
        assert [each.seq for each in found if not isinstance(each, Gap)] == [5]


async def test_hole_in_a_file_is_a_gap(tmp_path: Path) -> None:
    items = [trade(1, 1), trade(4, 2), trade(1, 3, epoch="e2", prev=0)]
    async with Replay(parquet(tmp_path / "x.parquet", items)) as replay:
        found = [each async for each in replay.market.trades("A")]
    assert [each for each in found if isinstance(each, Gap)] == [
        Gap("TRADES:A", "e1", 2, 3, GapReason.HISTORY),
        Gap("TRADES:A", "e1", 5, None, GapReason.EPOCH),
    ]


async def test_callback_gets_each_item(files: tuple[Path, Path]) -> None:
    seen: list[object] = []
    async with Replay(*files) as replay:
        callback = replay.market.on("TRADES:A", seen.append)
        await callback.task
    assert seen == TRADES
