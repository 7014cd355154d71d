"""Messages as a DataFrame, an Arrow table or a Parquet file; needs `floorcast[data]`."""

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from os import PathLike
from types import TracebackType
from typing import Any, Self

from client_sdk.contract import (
    AnyMessage,
    Bar,
    BookMessage,
    PriceMessage,
    SessionMessage,
    TradesMessage,
)
from client_sdk.errors import FloorcastError
from client_sdk.reading.gaps import Gap

Item = AnyMessage | SessionMessage | Gap
Row = dict[str, object]

ROWS_PER_BATCH = 10_000
# The columns of every table; a message leaves those of a gap empty, and vice versa.
_COMMON = {
    "topic": "string",
    "gap": "bool",
    "epoch": "string",
    "seq": "int64",
    "ts": "time",
    "missed_from": "int64",
    "missed_to": "int64",
    "reason": "string",
}
_MARKET = {
    "symbol": "string",
    "type": "string",
    "prev": "int64",
    "merged": "int64",
    "age_ms": "int64",
}
_LEVEL = {"side": "string", "price": "number", "qty": "number"}
_PRICES = dict.fromkeys(("bid", "ask", "last", "volume"), "number")
# Fields without a column of their own, as JSON.
_EXTRA = {"data": "string"}
_COLUMNS: dict[type[object], dict[str, str]] = {
    PriceMessage: _MARKET | _PRICES | _EXTRA,
    BookMessage: _MARKET | _LEVEL,
    TradesMessage: _MARKET | {"trade_id": "string"} | _LEVEL | {"trade_ts": "time"} | _EXTRA,
    SessionMessage: {"id": "string", "user_id": "string"} | _EXTRA,
}
_OTHER_COLUMNS = _MARKET | _EXTRA


class MissingExtra(FloorcastError, ImportError):
    """A library that tables need is not installed."""

    default_code = "client.missing_extra"


class MixedMessages(FloorcastError, ValueError):
    """Messages of different kinds in one table."""

    default_code = "client.mixed_messages"


def to_table(items: Iterable[Item], *, exact: bool = False) -> Any:
    """A `pyarrow.Table` of messages of one kind and the gaps between them.

    Numbers are floats, or with `exact` the published text, trailing zeros included. Raises
    `MixedMessages`, or `MissingExtra` without pyarrow.
    """
    pyarrow = import_extra("pyarrow")
    batches = []
    rows = _Rows(exact)
    for item in items:
        rows.add(item)
        if rows.is_full:
            batches.append(rows.take_batch())
    batches.append(rows.take_batch())
    return pyarrow.Table.from_batches(batches)


def to_dataframe(items: Iterable[Item], *, exact: bool = False) -> Any:
    """A `pandas.DataFrame` of messages of one kind and the gaps between them."""
    pandas = import_extra("pandas")
    table = to_table(items, exact=exact)
    # By default pandas turns an integer column into floats if a gap leaves a value empty.
    integers = {table.schema.field("seq").type: pandas.Int64Dtype()}
    return table.to_pandas(types_mapper=integers.get)


def bars_to_dataframe(bars: Sequence[Bar], *, exact: bool = False) -> Any:
    """A `pandas.DataFrame` of candles, indexed by the time of each bar.

    Numbers are floats, or with `exact` `decimal.Decimal`. Raises `MissingExtra` without pandas.
    """
    pandas = import_extra("pandas")
    number = Decimal if exact else float
    rows = [
        (number(each.o), number(each.h), number(each.l), number(each.c), number(each.v), each.n)
        for each in bars
    ]
    times = [each.t for each in bars]
    index = pandas.DatetimeIndex(pandas.to_datetime(times, unit="ms", utc=True), name="time")
    columns = ["open", "high", "low", "close", "volume", "trades"]
    return pandas.DataFrame(rows, index=index, columns=columns)


class ParquetSink:
    """Writes messages to a Parquet file in batches; the file is readable once it is closed."""

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        exact: bool = False,
        rows_per_batch: int = ROWS_PER_BATCH,
    ) -> None:
        self._parquet = import_extra("pyarrow.parquet")
        self._path = path
        self._rows = _Rows(exact, rows_per_batch)
        self._writer: Any = None
        self._closed = False
        self.row_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, item: Item) -> None:
        """Add a message or a gap; all messages must be of the first one's kind."""
        self._rows.add(item)
        if self._rows.is_full:
            self._write()

    def close(self) -> None:
        """Write the last batch and the footer; no-op if closed."""
        if not self._closed:
            self._closed = True
            self._write()
            self._writer.close()

    def _write(self) -> None:
        batch = self._rows.take_batch()
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._path, batch.schema)
        self._writer.write_batch(batch)
        self.row_count += batch.num_rows


class _Rows:
    """Collects rows into batches of one schema, set by the first message."""

    def __init__(self, exact: bool, max_rows: int = ROWS_PER_BATCH) -> None:
        self._pyarrow = import_extra("pyarrow")
        self._exact = exact
        self._max_rows = max_rows
        self._rows: list[Row] = []
        self._message_type: type[object] | None = None
        self._schema: Any = None

    @property
    def is_full(self) -> bool:
        return len(self._rows) >= self._max_rows

    def add(self, item: Item) -> None:
        if isinstance(item, Gap):
            self._rows.append(_gap_row(item))
            return
        message_type = type(item)
        if self._message_type is None and self._schema is None:
            self._message_type = message_type
        if message_type is not self._message_type:
            expected = self._message_type.__name__ if self._message_type else "gaps only"
            raise MixedMessages(
                f"{message_type.__name__} in a table of {expected}: use one table for each kind"
            )
        self._rows += _rows_of(item, str if self._exact else float)

    def take_batch(self) -> Any:
        if self._schema is None:
            self._schema = self._make_schema()
        batch = self._pyarrow.RecordBatch.from_pylist(self._rows, schema=self._schema)
        self._rows = []
        return batch

    def _make_schema(self) -> Any:
        pyarrow = self._pyarrow
        types = {
            "string": pyarrow.string(),
            "bool": pyarrow.bool_(),
            "int64": pyarrow.int64(),
            "time": pyarrow.timestamp("ms", tz="UTC"),
            "number": pyarrow.string() if self._exact else pyarrow.float64(),
        }
        columns: dict[str, str] = {}
        if self._message_type is not None:
            columns = _COLUMNS.get(self._message_type, _OTHER_COLUMNS)
        return pyarrow.schema(
            [(name, types[column]) for name, column in (_COMMON | columns).items()]
        )


def _gap_row(gap: Gap) -> Row:
    return {
        "topic": gap.topic,
        "symbol": gap.topic.partition(":")[2] or None,
        "gap": True,
        "epoch": gap.epoch,
        "missed_from": gap.missed_from,
        "missed_to": gap.missed_to,
        "reason": gap.reason.value,
    }


def _rows_of(item: AnyMessage | SessionMessage, number: Callable[[str], object]) -> Iterator[Row]:
    """The rows of a message, at least one, so that every position appears."""
    row: Row = {
        "topic": item.topic,
        "gap": False,
        "epoch": item.epoch,
        "seq": item.seq,
        "ts": item.ts,
    }
    if isinstance(item, SessionMessage):
        yield row | {"id": item.id, "user_id": item.user_id, "data": json.dumps(item.data)}
        return
    row |= {
        "symbol": item.symbol,
        "type": item.type,
        "prev": item.prev,
        "merged": item.merged,
        "age_ms": item.age_ms,
    }
    if isinstance(item, PriceMessage):
        prices = {name: number(getattr(item.data, name)) for name in _PRICES}
        yield row | prices | {"data": _extra_json(item.data.model_extra)}
    elif isinstance(item, BookMessage):
        levels = [("bid", *level) for level in item.data.bids]
        levels += [("ask", *level) for level in item.data.asks]
        for side, price, qty in levels:
            yield row | {"side": side, "price": number(price), "qty": number(qty)}
        if not levels:
            yield row
    elif isinstance(item, TradesMessage):
        extra = item.data.model_extra or {}
        if item.data.bars is not None:
            extra = {**extra, "bars": [bar.model_dump() for bar in item.data.bars]}
        for trade in item.data.trades:
            yield row | {
                "trade_id": str(trade.id),
                "side": trade.side,
                "price": number(trade.price),
                "qty": number(trade.qty),
                "trade_ts": trade.ts,
                "data": _extra_json(extra | (trade.model_extra or {})),
            }
        if not item.data.trades:
            yield row | {"data": _extra_json(extra)}
    else:
        yield row | {"data": item.data.model_dump_json(exclude_unset=True)}


def _extra_json(fields: dict[str, object] | None) -> str | None:
    return json.dumps(fields, default=str) if fields else None


def import_extra(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        hint = f"{name} is not installed: pip install 'floorcast[data]'"
        raise MissingExtra(hint, details={"library": name}) from error
