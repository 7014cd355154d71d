"""Reads a Parquet file as a recording; needs `floorcast[parquet]`."""

import importlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from client_sdk.contract.rows import Row, TableGap, messages_of_rows
from server.feeds.errors import FeedError
from server.feeds.recording import RecordedMessage, unreadable_error

SUFFIX = ".parquet"
# A batch is read and converted without a pause, so it is small.
_ROWS_PER_BATCH = 500


def import_pyarrow() -> Any:
    """The module that reads Parquet files; raises `FeedError` if it is not installed."""
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise FeedError(
            "the replay of a Parquet file needs a package: pip install 'floorcast[parquet]'"
        ) from None


def read_parquet(path: Path) -> Generator[RecordedMessage, None, None]:
    """Yield the messages of a file; raises `FeedError` with the number of a malformed message."""
    number = last_ts_ms = 0
    try:
        for number, each in enumerate(messages_of_rows(_rows(path)), 1):
            if isinstance(each, TableGap):
                continue
            # The clocks of a server's topics differ by some ms.
            last_ts_ms = max(last_ts_ms, each.ts_ms)
            # In other streams the first message is a snapshot only for its subscriber.
            kind = each.type if each.topic.startswith("ORDERBOOK:") else "update"
            yield RecordedMessage(number, last_ts_ms, each.topic, each.data, kind, None, "default")
    except OSError as error:
        raise unreadable_error(path, error) from None
    except ValueError as error:
        # Also what pyarrow says of a file that is none.
        raise FeedError(f"{path}: message {number + 1}: {error}") from None


def _rows(path: Path) -> Iterator[Row]:
    with import_pyarrow().ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_PER_BATCH):
            yield from batch.to_pylist()
