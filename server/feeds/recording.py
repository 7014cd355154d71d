"""Reads recordings: one JSON message per line, with the time of its publication."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from server.core.wire.strict_json import MalformedJson, loads
from server.feeds.errors import FeedError


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """One line of a recording."""

    line: int
    ts_ms: int
    topic: str
    data: dict[str, object]
    kind: str
    user: str | None
    org: str


def read_recording(path: Path) -> Generator[RecordedMessage, None, None]:
    """Yield the messages of a file; raises `FeedError` with the number of a malformed line."""
    last_ts_ms: int | None = None
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    message = _parse(line, number)
                except ValueError as error:
                    raise FeedError(f"{path}:{number}: {error}") from None
                if last_ts_ms is not None and message.ts_ms < last_ts_ms:
                    raise FeedError(f"{path}:{number}: ts goes backwards")
                last_ts_ms = message.ts_ms
                yield message
    except OSError as error:
        raise unreadable_error(path, error) from None


def unreadable_error(path: Path, error: OSError) -> FeedError:
    """The error for a recording that cannot be opened or read."""
    return FeedError(f"cannot read {path}: {error.strerror}")


def _parse(line: bytes, number: int) -> RecordedMessage:
    try:
        fields = loads(line.decode())
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except MalformedJson as error:
        raise ValueError(error.reason) from None
    if not isinstance(fields, dict):
        raise ValueError("a line must be a JSON object")
    ts_ms, topic, data = (fields.get(name) for name in ("ts", "topic", "data"))
    kind, user, org = fields.get("type", "update"), fields.get("user"), fields.get("org", "default")
    # In Python, True is an int.
    if not isinstance(ts_ms, int) or isinstance(ts_ms, bool):
        raise ValueError("ts must be an integer number of milliseconds")
    if not isinstance(topic, str):
        raise ValueError("topic must be a string")
    if not isinstance(data, dict):
        raise ValueError("data must be an object")
    if kind not in ("update", "snapshot"):
        raise ValueError('type must be "update" or "snapshot"')
    if not (user is None or isinstance(user, str)) or not isinstance(org, str):
        raise ValueError("user and org must be strings")
    return RecordedMessage(number, ts_ms, topic, data, kind, user, org)
