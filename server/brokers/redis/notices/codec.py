"""Writes notices as Redis keeps and tells them, and reads them back with suspicion."""

import orjson

from server.core.sessions.notices import Notice


def notice_key(notice: Notice) -> bytes:
    """What it is known by, over all users."""
    return orjson.dumps([notice.org, notice.user_id, notice.id])


def encode_notice(notice: Notice, critical: bool, until_ms: int, status: str = "") -> bytes:
    """A notice, as it is kept and told."""
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
    """What was told of a notice; None for anything that no node of ours has told."""
    try:
        said = orjson.loads(message)
    except orjson.JSONDecodeError:
        return None
    match said:
        case {
            "v": 1,
            "said": "notice" | "critical" | "seen" as what,
            "org": str(org),
            "user": str(user_id),
            "id": str(notice_id),
            "event": str(event),
            "ts": int(ts_ms),
            "until": int(until_ms),
            "data": dict(data),
        }:
            notice = Notice(org, user_id, notice_id, event, ts_ms, orjson.dumps(data))
            return str(what), notice, until_ms
    return None
