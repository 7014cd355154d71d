"""Encodes notices for Redis, and decodes them without trusting their source."""

import orjson

from server.core.sessions.notices import Notice

# Written by releases that index what they post. Releases before ignore this field.
_SCHEMA = 2
_INDEXED_START = b'{"v":1,"schema":2,'


def notice_key(notice: Notice) -> bytes:
    """The key of a notice, unique over all users."""
    return orjson.dumps([notice.org, notice.user_id, notice.id])


def user_prefix(org: str, user_id: str) -> bytes:
    """What the keys of all notices of a user begin with, and no others."""
    return orjson.dumps([org, user_id]).removesuffix(b"]") + b","


def is_indexed(message: bytes) -> bool:
    """Whether an encoded notice was posted by a release that indexes it."""
    return message.startswith(_INDEXED_START)


def encode_notice(notice: Notice, critical: bool, until_ms: int, status: str = "") -> bytes:
    """Encode a notice as stored and published; `status` overrides "critical" or "notice"."""
    return orjson.dumps(
        {
            "v": 1,
            "schema": _SCHEMA,
            "said": status or ("critical" if critical else "notice"),
            "org": notice.org,
            "user": notice.user_id,
            "id": notice.id,
            "event": notice.event,
            "ts": notice.ts_ms,
            "until": until_ms,
            "data": orjson.Fragment(notice.data),
        }
    )


def decode_notice(message: bytes) -> tuple[str, Notice, int] | None:
    """The status, the notice and its expiry in ms; None if the message is malformed."""
    try:
        fields = orjson.loads(message)
    except orjson.JSONDecodeError:
        return None
    match fields:
        case {
            "v": 1,
            "said": "notice" | "critical" | "seen" as status,
            "org": str(org),
            "user": str(user_id),
            "id": str(notice_id),
            "event": str(event),
            "ts": int(ts_ms),
            "until": int(until_ms),
            "data": dict(data),
        }:
            notice = Notice(org, user_id, notice_id, event, ts_ms, orjson.dumps(data))
            return str(status), notice, until_ms
    return None
