"""Encodes session data for Redis, and decodes it without trusting its source."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from server.brokers.redis.connection.replies import (
    Reply,
    as_list,
    as_mapping,
    as_number,
    malformed_reply,
)
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.participants import Participants
from server.core.sessions.presence import Member
from server.core.sessions.records import key_of_channel

_MEMBER = re.compile(rb"(\d{1,15}) (\d{1,15}) (\d{1,15})")
_PUBLISHED_KINDS = frozenset({"joined", "left", "kicked", "barred", "closed", "signal"})


@dataclass(frozen=True, slots=True)
class SessionReply:
    """A session as returned by a script: participants, facts, mark and due time."""

    participants: Participants
    facts: bytes
    mark: bytes
    due_ms: int
    # Values that no node of ours has written.
    malformed_count: int = 0


@dataclass(frozen=True, slots=True)
class JoinResult:
    """The session after a join; without one, the outcome says why it was rejected."""

    outcome: bytes
    session: SessionReply | None = None


@dataclass(frozen=True, slots=True)
class RemovalResult:
    """The number of removed connections, if the outcome is "ok"."""

    outcome: bytes
    count: int = 0
    due_ms: int = 0


@dataclass(frozen=True, slots=True)
class AssertResult:
    """The session, and the connections that were removed from it; without one it is closed."""

    revision: int
    session: SessionReply | None = None
    missing: frozenset[str] = frozenset()
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class ExpireResult:
    """When the session is due again, or the facts of a session that was deleted."""

    exists: bool
    due_ms: int = 0
    facts: bytes = b""


def encode_facts(user_id: str, metadata: Mapping[str, object] | None) -> bytes:
    """Encode a session's creator and metadata."""
    return orjson.dumps({"by": user_id, "metadata": metadata or {}})


def creator_of(facts: bytes) -> str:
    """The session's creator; empty if the facts are malformed."""
    return str(_decode_facts(facts).get("by", ""))


def metadata_of(facts: bytes) -> Mapping[str, object]:
    """The session's metadata; empty if the facts are malformed."""
    metadata = _decode_facts(facts).get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def decode_reply(reply: list[Reply]) -> SessionReply:
    """Decode a session as returned by a script; malformed values are skipped and counted."""
    match reply:
        case [revision, closed, bytes() as facts, bytes() as mark, users, int() as due_ms]:
            decoded = [_decode_member(*each) for each in as_mapping(users).items()]
        case _:
            raise malformed_reply()
    members = sorted((each for each in decoded if each is not None), key=lambda each: each[0])
    metadata = _decode_facts(facts).get("metadata")
    return SessionReply(
        Participants(
            as_number(revision),
            tuple(member for _, member in members),
            bool(closed),
            metadata if isinstance(metadata, dict) else {},
        ),
        facts,
        mark,
        due_ms,
        malformed_count=len(decoded) - len(members) + (not isinstance(metadata, dict)),
    )


def _decode_member(user: bytes, state: bytes) -> tuple[int, Member] | None:
    """A member and its number in the order of joining; None if malformed."""
    found = _MEMBER.fullmatch(state)
    try:
        user_id = user.decode()
    except UnicodeDecodeError:
        return None
    if found is None:
        return None
    connections, joined_at_ms, number = map(int, found.groups())
    return number, Member(user_id, connections, joined_at_ms)


def _decode_facts(facts: bytes) -> Mapping[str, object]:
    try:
        decoded = orjson.loads(facts)
    except orjson.JSONDecodeError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


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


def decode_events(channel: str, revision: int, reply: list[Reply]) -> list[SessionEvent] | None:
    """Decode the events after a revision as returned by a script; None if some are missing."""
    if not reply:
        return None
    newest, stored = reply
    events = [decode_event(channel, _event_of(each)) for each in as_list(stored)]
    known = [each for each in events if each is not None]
    # Another node sent the revision, which may be far from the newest one.
    is_complete = len(known) == as_number(newest) - revision and all(
        each.revision == number for number, each in enumerate(known, revision + 1)
    )
    return known if is_complete else None


def _event_of(stored: Reply) -> bytes:
    """The event in an entry of the stream: its id, then the field and its value."""
    match stored:
        case [_, [_, bytes() as event]]:
            return event
    raise malformed_reply()
