"""Messages from the rows of a table, such as a Parquet file that `floorcast.data` has written."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby

from client_sdk.contract.names import Stream

Row = Mapping[str, object]

_PRICES = ("bid", "ask", "last", "volume")


@dataclass(frozen=True, slots=True)
class TableMessage:
    """The rows of one message; a table that has no positions leaves them None."""

    topic: str
    type: str
    ts_ms: int
    data: dict[str, object]
    epoch: str | None = None
    seq: int | None = None
    prev: int | None = None


@dataclass(frozen=True, slots=True)
class TableGap:
    """The row of messages that were missing."""

    topic: str
    epoch: str
    missed_from: int
    missed_to: int | None
    reason: str


def messages_of_rows(rows: Iterable[Row]) -> Iterator[TableMessage | TableGap]:
    """Join the rows of each message; numbers become text, floats by their shortest digits.

    Rows with the same position belong together, or in a table without positions those of one topic
    and time. Raises `ValueError` with the reason if a row is no part of a message.
    """
    for _, group in groupby(rows, _key):
        together = list(group)
        first = together[0]
        topic = first.get("topic")
        if not isinstance(topic, str):
            raise ValueError("a row needs a topic")
        if first.get("gap"):
            yield _gap(topic, first)
        else:
            yield _message(topic, together)


def _key(row: Row) -> tuple[object, ...]:
    seq = row.get("seq")
    where = row.get("ts") if seq is None else (row.get("epoch"), seq)
    return row.get("topic"), bool(row.get("gap")), where, row.get("missed_from")


def _gap(topic: str, row: Row) -> TableGap:
    missed_to = row.get("missed_to")
    return TableGap(
        topic,
        str(row.get("epoch")),
        _integer(row, "missed_from"),
        None if missed_to is None else _integer(row, "missed_to"),
        str(row.get("reason")),
    )


def _message(topic: str, rows: list[Row]) -> TableMessage:
    first = rows[0]
    epoch = first.get("epoch")
    return TableMessage(
        topic,
        str(first.get("type") or "update"),
        _time_ms(first, "ts"),
        _data(topic, rows),
        None if epoch is None else str(epoch),
        *(None if first.get(name) is None else _integer(first, name) for name in ("seq", "prev")),
    )


def _data(topic: str, rows: list[Row]) -> dict[str, object]:
    stream = topic.partition(":")[0]
    if stream == Stream.PRICE.value:
        return {name: _text(rows[0], name) for name in _PRICES} | _more(rows[0])
    if stream == Stream.ORDERBOOK.value:
        return {"bids": _levels(rows, "bid"), "asks": _levels(rows, "ask")}
    if stream == Stream.TRADES.value:
        trades = [_trade(row) for row in rows if row.get("trade_id") is not None]
        return {"trades": trades} if trades else {"trades": []} | _more(rows[0])
    return _more(rows[0])


def _levels(rows: list[Row], side: str) -> list[list[str]]:
    return [[_text(row, "price"), _text(row, "qty")] for row in rows if row.get("side") == side]


def _trade(row: Row) -> dict[str, object]:
    return {
        "id": str(row["trade_id"]),
        "price": _text(row, "price"),
        "qty": _text(row, "qty"),
        "side": row.get("side"),
        "ts": _time_ms(row, "trade_ts"),
    } | _more(row)


def _more(row: Row) -> dict[str, object]:
    """The fields without a column of their own."""
    text = row.get("data")
    if text is None:
        return {}
    fields = json.loads(str(text))
    if not isinstance(fields, dict):
        raise ValueError("the column data must have JSON objects")
    return fields


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"the column {name} must have numbers")
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise ValueError(f"the column {name} must have finite numbers")
    # 3.0 is a float's way to write 3.
    digits = format(number, "f")
    return digits.removesuffix(".0") if isinstance(value, float) else digits


def _integer(row: Row, name: str) -> int:
    value = row.get(name)
    if not isinstance(value, int):
        raise ValueError(f"the column {name} must have integers")
    return value


def _time_ms(row: Row, name: str) -> int:
    value = row.get(name)
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    return _integer(row, name)
