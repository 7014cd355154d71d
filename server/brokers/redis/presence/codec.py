"""Encodes session data for Redis, and decodes it without trusting its source."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.participants import Participants
from server.core.sessions.presence import Member
from server.core.sessions.records import key_of_channel

_PUBLISHED_KINDS = frozenset({"joined", "left", "kicked", "barred", "closed", "signal"})


@dataclass(frozen=True, slots=True)
class SessionReply:
    """A session as returned by a script: participants, facts, mark and due time."""

    participants: Participants
    facts: bytes
    mark: bytes
    due_ms: int


def encode_facts(user_id: str, metadata: Mapping[str, object] | None) -> bytes:
    """Encode a session's creator and metadata."""
    return orjson.dumps({"by": user_id, "metadata": metadata or {}})


def creator_of(facts: bytes) -> str:
    """The session's creator."""
    return str(orjson.loads(facts)["by"])


def decode_reply(reply: list[Any]) -> SessionReply:
    """Decode a session as returned by a script."""
    revision, closed, facts, mark, flat, due_ms = reply
    users = zip(flat[::2], flat[1::2], strict=True)
    numbered = sorted((int(state.split(b" ")[2]), user, state) for user, state in users)
    return SessionReply(
        Participants(
            int(revision),
            tuple(_member(user, state) for _, user, state in numbered),
            bool(closed),
            orjson.loads(facts)["metadata"],
        ),
        facts,
        mark,
        due_ms,
    )


def _member(user: bytes, state: bytes) -> Member:
    connections, joined_at_ms, _ = state.split(b" ")
    return Member(user.decode(), int(connections), int(joined_at_ms))


def encode_signal(connection_id: str, user_id: str, data: bytes, ts_ms: int) -> bytes:
    """Encode a signal as published to all nodes."""
    return b'{"v":1,"said":"signal","revision":0,"user":%b,"by":%b,"ts":%d,"data":%b}' % (
        orjson.dumps(user_id),
        orjson.dumps(connection_id),
        ts_ms,
        data,
    )


def decode_event(channel: str, message: bytes) -> SessionEvent | None:
    """Decode a session event; None if the message is malformed."""
    key = key_of_channel(channel)
    if key is None:
        return None
    try:
        fields = orjson.loads(message)
    except orjson.JSONDecodeError:
        return None
    match fields:
        case {
            "v": 1,
            "said": str(kind),
            "revision": int(revision),
            "user": str(user_id),
            "ts": int(ts_ms),
        } if kind in _PUBLISHED_KINDS:
            count, by, data = fields.get("count", 0), fields.get("by", ""), fields.get("data", {})
            if isinstance(count, int) and isinstance(by, str) and isinstance(data, dict):
                encoded = orjson.dumps(data) if data else b"{}"
                return SessionEvent(
                    key, SessionEventKind(kind), revision, ts_ms, user_id, count, by, encoded
                )
    return None


def decode_events(channel: str, revision: int, reply: list[Any]) -> list[SessionEvent] | None:
    """Decode the events after a revision as returned by a script; None if some are missing."""
    if not reply:
        return None
    newest, stored = reply
    events = [decode_event(channel, fields[1]) for _, fields in stored]
    known = [each for each in events if each is not None]
    is_complete = [each.revision for each in known] == list(range(revision + 1, int(newest) + 1))
    return known if is_complete else None
