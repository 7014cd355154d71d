"""Reads recordings: a file of JSON, one message a line, with the time at which it was published."""

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
    """The messages of a file, one at a time; raises `FeedError` with the number of a bad line."""
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
    """What to raise where a recording cannot be opened or read."""
    return FeedError(f"cannot read {path}: {error.strerror}")


def _parse(line: bytes, number: int) -> RecordedMessage:
    try:
        fields = loads(line.decode())
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except MalformedJson as error:
        raise ValueError(error.reason) from None
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    ts_ms, topic, data = (fields.get(name) for name in ("ts", "topic", "data"))
    kind, user, org = fields.get("type", "update"), fields.get("user"), fields.get("org", "default")
    # True is an int to Python.
    if not isinstance(ts_ms, int) or isinstance(ts_ms, bool):
        raise ValueError("ts is no whole number of milliseconds")
    if not isinstance(topic, str):
        raise ValueError("topic is no text")
    if not isinstance(data, dict):
        raise ValueError("data is no object")
    if kind not in ("update", "snapshot"):
        raise ValueError('type is neither "update" nor "snapshot"')
    if not (user is None or isinstance(user, str)) or not isinstance(org, str):
        raise ValueError("user or org is no text")
    return RecordedMessage(number, ts_ms, topic, data, kind, user, org)
