"""Tables hold every field of every message, and a row for each gap."""

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from client_sdk.contract import AnyMessage, SessionMessage, Stream, TypedMessage
from client_sdk.data import Item, MissingExtra, MixedMessages, ParquetSink, to_dataframe, to_table
from client_sdk.errors import FloorcastError
from client_sdk.reading.gaps import Gap, GapReason
from tests.kit.patience import MAX_WAIT_SECONDS

MODELS: TypeAdapter[AnyMessage] = TypeAdapter(TypedMessage)
GAP = Gap("TRADES:A", "e1", 8, 10, GapReason.HISTORY)
PRICE = {"bid": "1.00", "ask": "1.20", "last": "1.10", "volume": "5"}
TRADES = {
    "trades": [
        {"id": 7, "price": "1.10", "qty": "2.50", "side": "buy", "ts": 1_000},
        {"id": "b", "price": "1.2", "qty": "1", "side": "sell", "ts": 2_000, "maker": "ann"},
    ]
}


def message(stream: Stream, seq: int, data: dict[str, Any], **fields: object) -> AnyMessage:
    """A message as a server sends it."""
    body = {"stream": stream, "symbol": "A" if stream.per_symbol else None, "type": "update"}
    position = {"epoch": "e1", "seq": seq, "prev": seq - 1, "ts": 1_800_000_000_123}
    return MODELS.validate_json(json.dumps({**body, **position, "data": data, **fields}))


def session_message(seq: int) -> SessionMessage:
    return SessionMessage(
        session_id="room",
        epoch="e1",
        seq=seq,
        ts=5,
        id=f"m{seq}",
        user_id="ann",
        data={"text": "hé"},
    )


def rows(items: Sequence[Item], *names: str, exact: bool = False) -> list[tuple[object, ...]]:
    """The rows of a table, reduced to some columns."""
    table = to_table(items, exact=exact)
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def test_price_is_a_row_with_position_and_numbers() -> None:
    tick = message(Stream.PRICE, 3, PRICE, merged=2, age_ms=9, prev=1)
    (row,) = to_table([tick]).to_pylist()
    assert row == {
        "topic": "PRICE:A",
        "symbol": "A",
        "gap": False,
        "epoch": "e1",
        "seq": 3,
        "ts": datetime(2027, 1, 15, 8, 0, 0, 123_000, UTC),
        "missed_from": None,
        "missed_to": None,
        "reason": None,
        "type": "update",
        "prev": 1,
        "merged": 2,
        "age_ms": 9,
        "bid": 1.0,
        "ask": 1.2,
        "last": 1.1,
        "volume": 5.0,
        "data": None,
    }


def test_exact_table_keeps_the_published_text() -> None:
    assert rows([message(Stream.PRICE, 1, PRICE)], "bid", exact=True) == [("1.00",)]
    assert rows([message(Stream.TRADES, 1, TRADES)], "qty", exact=True) == [("2.50",), ("1",)]


def test_extra_fields_of_a_publisher_become_json() -> None:
    tick = message(Stream.PRICE, 1, {**PRICE, "venue": "x", "bids": 3})
    ((data,),) = rows([tick], "data")
    assert json.loads(str(data)) == {"venue": "x", "bids": 3}


def test_each_trade_is_a_row() -> None:
    actual = rows(
        [message(Stream.TRADES, 4, {**TRADES, "venue": "x"})],
        *("seq", "trade_id", "side", "price", "qty", "data"),
    )
    assert actual == [
        (4, "7", "buy", 1.1, 2.5, '{"venue": "x"}'),
        (4, "b", "sell", 1.2, 1.0, '{"venue": "x", "maker": "ann"}'),
    ]
    ((first,), _) = rows([message(Stream.TRADES, 4, TRADES)], "trade_ts")
    assert first == datetime.fromtimestamp(1, UTC)


def test_each_level_of_a_book_is_a_row() -> None:
    levels = {"bids": [["1.0", "2"], ["0.9", "0"]], "asks": [["1.1", "3"]]}
    actual = rows([message(Stream.ORDERBOOK, 4, levels)], "seq", "side", "price", "qty")
    assert actual == [(4, "bid", 1.0, 2.0), (4, "bid", 0.9, 0.0), (4, "ask", 1.1, 3.0)]


@pytest.mark.parametrize(
    "empty",
    [
        message(Stream.ORDERBOOK, 4, {"bids": [], "asks": []}, type="snapshot"),
        message(Stream.TRADES, 4, {"trades": []}, type="snapshot"),
    ],
    ids=["book", "trades"],
)
def test_empty_message_has_a_row(empty: AnyMessage) -> None:
    assert rows([empty], "seq", "type", "price") == [(4, "snapshot", None)]


def test_private_message_is_a_row_with_json_data() -> None:
    alert = message(Stream.RISK_ALERTS, 2, {"level": 3, "message": "hé", "more": [1]})
    ((topic, data),) = rows([alert], "topic", "data")
    assert topic == "RISK_ALERTS"
    assert json.loads(str(data)) == {"level": 3, "message": "hé", "more": [1]}


def test_session_message_is_a_row_with_its_user() -> None:
    ((topic, seq, message_id, user, data),) = rows(
        [session_message(3)], "topic", "seq", "id", "user_id", "data"
    )
    assert (topic, seq, message_id, user) == ("room", 3, "m3", "ann")
    assert json.loads(str(data)) == {"text": "hé"}


def test_gap_is_a_row_between_messages() -> None:
    items = [message(Stream.TRADES, 7, TRADES), GAP, message(Stream.TRADES, 11, TRADES)]
    actual = rows(items, "seq", "gap", "missed_from", "missed_to", "reason")
    assert actual == [
        *[(7, False, None, None, None)] * 2,
        (None, True, 8, 10, "history"),
        *[(11, False, None, None, None)] * 2,
    ]


def test_leading_gap_without_an_end_is_a_row() -> None:
    lost = Gap("TRADES:A", "e0", 1, None, GapReason.EPOCH)
    actual = rows([lost, message(Stream.TRADES, 1, TRADES)], "epoch", "gap", "missed_to")
    assert actual[0] == ("e0", True, None)


def test_empty_table_has_the_common_columns() -> None:
    assert to_table([]).num_rows == 0
    assert to_table([GAP]).column_names == to_table([]).column_names
    assert "missed_from" in to_table([]).column_names


def test_table_refuses_a_second_kind_of_message() -> None:
    with pytest.raises(MixedMessages, match="PriceMessage") as caught:
        to_table([message(Stream.TRADES, 1, TRADES), message(Stream.PRICE, 1, PRICE)])
    assert caught.value.code == "client.mixed_messages"
    assert isinstance(caught.value, FloorcastError)


def test_data_frame_keeps_integers_beside_a_gap() -> None:
    frame = to_dataframe([message(Stream.TRADES, 7, TRADES), GAP])
    assert isinstance(frame, pd.DataFrame)
    assert str(frame["seq"].dtype) == "Int64"
    assert frame["seq"].isna().tolist() == [False, False, True]
    assert frame[~frame["gap"]]["qty"].sum() == 3.5
    assert str(frame["ts"].dt.tz) == "UTC"


def test_many_messages_are_one_table() -> None:
    count = 10_001
    table = to_table(message(Stream.PRICE, seq, PRICE) for seq in range(1, count + 1))
    assert table.column("seq").to_pylist() == list(range(1, count + 1))


def test_parquet_file_is_written_in_batches(tmp_path: Path) -> None:
    path = tmp_path / "trades.parquet"
    with ParquetSink(path, rows_per_batch=4) as sink:
        sink.add(GAP)
        for seq in (11, 12, 13):
            sink.add(message(Stream.TRADES, seq, TRADES))
        assert sink.row_count == 5, "full batches are written"
    assert sink.row_count == 7
    file = pq.ParquetFile(path)
    assert file.metadata.num_row_groups == 2
    assert file.read().column("seq").to_pylist() == [None, 11, 11, 12, 12, 13, 13]
    assert file.schema_arrow == to_table([message(Stream.TRADES, 1, TRADES)]).schema
    file.close()


def test_parquet_file_takes_the_kind_of_its_first_message(tmp_path: Path) -> None:
    path = tmp_path / "prices.parquet"
    with ParquetSink(path) as sink:
        sink.add(message(Stream.PRICE, 1, PRICE))
        with pytest.raises(MixedMessages):
            sink.add(session_message(1))
    assert pq.read_table(path).column("last").to_pylist() == [1.1]


def test_parquet_file_that_starts_with_gaps_only_refuses_messages(tmp_path: Path) -> None:
    with ParquetSink(tmp_path / "gaps.parquet", rows_per_batch=1) as sink:
        sink.add(GAP)
        with pytest.raises(MixedMessages, match="gaps only"):
            sink.add(session_message(1))


def test_empty_sink_closes_twice_and_is_readable(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "none.parquet", exact=True)
    sink.close()
    sink.close()
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


@pytest.mark.parametrize("library", ["pyarrow", "pandas"])
def test_missing_library_error_names_the_extra(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=r"pip install 'floorcast\[data\]'") as caught:
        to_dataframe([])
    assert caught.value.code == "client.missing_extra"
    assert isinstance(caught.value, ImportError)


def test_data_module_imports_without_its_libraries() -> None:
    blocked = "import sys; sys.modules.update(pyarrow=None, pandas=None); import client_sdk.data"
    subprocess.run([sys.executable, "-c", blocked], check=True, timeout=MAX_WAIT_SECONDS)


def test_market_messages_and_their_gaps_have_a_symbol() -> None:
    gap = Gap("TRADES:A", "e", 1, 2, GapReason.HISTORY)
    trades = message(Stream.TRADES, 3, {"trades": []})
    assert rows([gap, trades], "symbol") == [("A",), ("A",)]
