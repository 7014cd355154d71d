"""Writes entries as Redis keeps and tells them, and reads them back with suspicion."""

import re

import orjson

from server.core.log.entries import Entry, Position

VERSION = 1
# The script puts this in front of what `tail` makes, once it knows the place.
HEAD_FORMAT = '{"v":1,"epoch":"%s","seq":%.0f,'

_ENVELOPE = re.compile(
    rb'\{"v":1,"epoch":"([0-9a-zA-Z.-]{1,64})","seq":(\d{1,15}),"ts":(\d{1,15}),'
    rb'"kind":"(update|snapshot)","data":(\{.*\})\}',
    re.DOTALL,
)


def encode_tail(data: bytes, ts_ms: int, kind: str) -> bytes:
    """All of an entry but its place, which only Redis can give."""
    return b'"ts":%d,"kind":"%b","data":%b}' % (ts_ms, kind.encode(), data)


def decode_entry(channel: str, message: object, max_bytes: int) -> Entry | None:
    """An entry, or None for anything that no node of ours has written."""
    if not isinstance(message, bytes) or len(message) > max_bytes:
        return None
    envelope = _ENVELOPE.fullmatch(message)
    if envelope is None:
        return None
    epoch, seq, ts_ms, kind, data = envelope.groups()
    try:
        # It goes to clients as it stands here: half a document would break everybody's frames.
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return Entry(channel, Position(epoch.decode(), int(seq)), int(ts_ms), data, kind.decode())
