"""Reads Parquet files and recordings as messages and gaps, in the order of time."""

import heapq
import json
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from client_sdk.contract import AnyMessage, TypedMessage
from client_sdk.contract.rows import TableGap, TableMessage, messages_of_rows
from client_sdk.data import import_extra
from client_sdk.errors import InvalidData
from client_sdk.reading.gaps import Gap, GapReason

_MESSAGE: TypeAdapter[AnyMessage] = TypeAdapter(TypedMessage)
_ROWS_PER_BATCH = 1_000
# Of messages without positions.
_EPOCH = "file"


def read_messages(path: str | PathLike[str]) -> Iterator[AnyMessage | Gap]:
    """The messages and gaps of a Parquet file, or of a recording (`.jsonl`), in its order.

    Raises `InvalidData` at what is no message, and `MissingExtra` without pyarrow.
    """
    file = Path(path)
    seqs: dict[str, int] = {}
    number = 0
    try:
        found = read_table(file) if is_table(file) else _lines(file)
        for each in found:
            yield _gap(each) if isinstance(each, TableGap) else _message(each, seqs)
            number += 1
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidData(f"{file}: message {number + 1}: {_reason(error)}") from None


def is_table(path: Path) -> bool:
    """Whether a file is a table, and not a recording."""
    return path.suffix == ".parquet"


def read_table(path: Path) -> Iterator[TableMessage | TableGap]:
    """The messages and gaps of a Parquet file; raises `ValueError`, and `MissingExtra`."""
    with import_extra("pyarrow.parquet").ParquetFile(path) as file:
        batches = file.iter_batches(_ROWS_PER_BATCH)
        yield from messages_of_rows(row for batch in batches for row in batch.to_pylist())


def merged(paths: Sequence[str | PathLike[str]]) -> Iterator[tuple[int, AnyMessage | Gap]]:
    """The messages of several files by time, each with the time in ms, which never goes back."""
    return heapq.merge(*(_timed(each) for each in paths), key=lambda timed: timed[0])


def _timed(path: str | PathLike[str]) -> Iterator[tuple[int, AnyMessage | Gap]]:
    ts_ms = 0
    for item in read_messages(path):
        if not isinstance(item, Gap):
            ts_ms = max(ts_ms, item.ts)
        yield ts_ms, item


def _lines(path: Path) -> Iterator[TableMessage]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                fields = json.loads(line)
                yield TableMessage(
                    fields["topic"],
                    fields.get("type", "update"),
                    fields["ts"],
                    fields["data"],
                    fields.get("epoch"),
                    fields.get("seq"),
                )


def _message(found: TableMessage, seqs: dict[str, int]) -> AnyMessage:
    """The message as a client receives it; `seqs` has the last one of each topic."""
    name, _, view = found.topic.partition("@")
    stream, _, symbol = name.partition(":")
    last = seqs.get(found.topic, 0)
    seq = last + 1 if found.seq is None else found.seq
    seqs[found.topic] = seq
    body = {
        "stream": stream,
        "symbol": symbol or None,
        "view": view or None,
        "type": found.type,
        "epoch": found.epoch or _EPOCH,
        "seq": seq,
        "prev": last if found.prev is None else found.prev,
        "ts": found.ts_ms,
        "data": found.data,
    }
    # As JSON: the models are strict about what JSON cannot say, such as tuples.
    return _MESSAGE.validate_json(json.dumps(body))


def _gap(found: TableGap) -> Gap:
    reason = GapReason(found.reason)
    return Gap(found.topic, found.epoch, found.missed_from, found.missed_to, reason)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"no {error}" if isinstance(error, KeyError) else str(error)
