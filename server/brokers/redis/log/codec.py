"""Encodes entries for Redis, and decodes them without trusting their source."""

import re

import orjson

from server.core.log.entries import Entry, Position

VERSION = 1
# The publish script puts this before the result of `encode_tail`, once it knows the position.
HEAD_FORMAT = '{"v":1,"epoch":"%s","seq":%.0f,'

_ENVELOPE = re.compile(
    rb'\{"v":1,"epoch":"([0-9a-zA-Z.-]{1,64})","seq":(\d{1,15}),"ts":(\d{1,15}),'
    rb'"kind":"(update|snapshot)","data":(\{.*\})\}',
    re.DOTALL,
)


def encode_tail(data: bytes, ts_ms: int, kind: str) -> bytes:
    """An encoded entry without its position, which Redis assigns."""
    return b'"ts":%d,"kind":"%b","data":%b}' % (ts_ms, kind.encode(), data)


def decode_entry(channel: str, message: object, max_bytes: int) -> Entry | None:
    """The decoded entry, or None if the message is too large or malformed."""
    if not isinstance(message, bytes) or len(message) > max_bytes:
        return None
    envelope = _ENVELOPE.fullmatch(message)
    if envelope is None:
        return None
    epoch, seq, ts_ms, kind, data = envelope.groups()
    try:
        # Clients get these bytes unchanged, so malformed JSON would corrupt their frames.
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return Entry(channel, Position(epoch.decode(), int(seq)), int(ts_ms), data, kind.decode())
