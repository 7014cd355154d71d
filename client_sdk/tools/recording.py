"""The file of a recording: one JSON object a line, as the replay feed of the server reads it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from client_sdk.contract import MarketMessage, Stream
from client_sdk.contract.rows import TableMessage
from client_sdk.data import MissingExtra
from client_sdk.replay.files import is_table, read_table
from client_sdk.tools.options import UsageError


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """One line of a recording."""

    ts_ms: int
    topic: str
    data: dict[str, object]
    kind: str
    # Where it stood in its topic, as a text that is the same in every replay.
    position: str
    user: str | None


class RecordingWriter:
    """Writes messages with their positions and times; times never go back."""

    def __init__(self, file: TextIO, user: str | None) -> None:
        self._file = file
        # The owner of private topics.
        self._user = user
        self._last_ts_ms = 0
        self.count = 0

    def write(self, message: MarketMessage, data: dict[str, object]) -> None:
        """Write one message."""
        self._last_ts_ms = max(self._last_ts_ms, message.ts)
        line: dict[str, object] = {
            "ts": self._last_ts_ms,
            "topic": message.topic,
            # In the other streams the first message is a snapshot only for its subscriber.
            "type": message.type if message.stream is Stream.ORDERBOOK else "update",
            "epoch": message.epoch,
            "seq": message.seq,
            "data": data,
        }
        if message.symbol is None:
            line["user"] = self._user
        if message.merged is not None:
            line["merged"] = message.merged
        self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        self.count += 1


def read_recording(path: Path) -> Iterator[RecordedMessage]:
    """Yield the messages of a file, JSON Lines or Parquet; raises `UsageError` if malformed."""
    if is_table(path):
        yield from _read_table(path)
        return
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _parse(line, f"{path}:{number}", number)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {path}: it is not UTF-8") from None


def _read_table(path: Path) -> Iterator[RecordedMessage]:
    number = 0
    try:
        for each in read_table(path):
            number += 1
            if isinstance(each, TableMessage):
                position = f"{each.epoch or 'row'}:{each.seq or number}"
                is_book = each.topic.startswith(f"{Stream.ORDERBOOK}:")
                kind = each.type if is_book else "update"
                yield RecordedMessage(each.ts_ms, each.topic, each.data, kind, position, None)
    except (OSError, ValueError, MissingExtra) as error:
        raise UsageError(f"cannot read {path}: message {number + 1}: {error}") from None


def _parse(line: str, where: str, number: int) -> RecordedMessage:
    try:
        fields = json.loads(line)
        return RecordedMessage(
            ts_ms=int(fields["ts"]),
            topic=str(fields["topic"]),
            data=dict(fields["data"]),
            kind=str(fields.get("type", "update")),
            position=f"{fields.get('epoch', 'line')}:{fields.get('seq', number)}",
            user=fields.get("user"),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{where}: no recorded message: {error!r}") from None
