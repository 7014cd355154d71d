"""Encodes notices for Redis, and decodes them without trusting their source."""

import orjson

from server.core.sessions.notices import Notice


def notice_key(notice: Notice) -> bytes:
    """The key of a notice, unique over all users."""
    return encode_key(notice.org, notice.user_id, notice.id)


def encode_key(org: str, user_id: str, notice_id: str) -> bytes:
    """The key of a notice with this id."""
    return orjson.dumps([org, user_id, notice_id])


def encode_notice(notice: Notice, critical: bool, until_ms: int, status: str = "") -> bytes:
    """Encode a notice as stored and published; `status` overrides "critical" or "notice"."""
    return orjson.dumps(
        {
            "v": 1,
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
