"""Encodes the events and messages of sessions."""

from collections.abc import Iterable, Mapping, Sequence

import orjson

from client_sdk.contract import SESSION_NAMESPACE, ErrorCode
from server.core.errors import LimitError, RequestError
from server.core.log.entries import Entry
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.session_state import SessionState
from server.core.wire.packets import event_head
from server.core.wire.strict_json import dumps
from server.delivery.channel import Channel

Reply = dict[str, object]

_ANNOUNCEMENTS = {
    SessionEventKind.JOINED: "user_joined",
    SessionEventKind.LEFT: "user_left",
    SessionEventKind.KICKED: "user_left",
}


def encode_event(name: str, event: SessionEvent, **fields: object) -> bytes:
    """A session event without its closing bracket: each client's offset may follow."""
    body = {"session_id": event.key[1], **fields, "ts": event.ts_ms}
    return event_head(SESSION_NAMESPACE, name, dumps(body))


def encode_announcement(event: SessionEvent) -> bytes | None:
    """The event that tells other members of a join or leave; None if nothing is announced."""
    name = _ANNOUNCEMENTS.get(event.kind)
    if name is None:
        return None
    return encode_event(
        name, event, user_id=event.user_id, participant_count=event.participant_count
    )


def encode_signal(event: SessionEvent) -> bytes:
    """A signal event without its closing bracket; its data is JSON already."""
    body = b'{"session_id":%b,"user_id":%b,"data":%b,"ts":%d}' % (
        orjson.dumps(event.key[1]),
        orjson.dumps(event.user_id),
        event.data,
        event.ts_ms,
    )
    return event_head(SESSION_NAMESPACE, "signal", body)


def session_state(channel: Channel) -> SessionState:
    """The state of a session's channel."""
    state = channel.state
    assert isinstance(state, SessionState)
    return state


def message_bodies(channel: Channel, entries: Iterable[Entry]) -> list[orjson.Fragment]:
    """The bodies of session messages, for a reply."""
    state = session_state(channel)
    return [orjson.Fragment(state.body(entry)) for entry in entries]


def newest_within(entries: Sequence[Entry], max_bytes: int) -> Sequence[Entry]:
    """The newest entries whose data fits, at least one."""
    size, first = 0, len(entries)
    for entry in reversed(entries):
        size += len(entry.data)
        if size > max_bytes and first < len(entries):
            break
        first -= 1
    return entries[first:]


def encode_within(data: Mapping[str, object], max_bytes: int) -> bytes:
    """A client's object as JSON; raises `RequestError` if invalid, `LimitError` if too large."""
    try:
        encoded = dumps(dict(data))
    except ValueError as error:
        raise RequestError(ErrorCode.REQUEST_INVALID, str(error)) from None
    if len(encoded) > max_bytes:
        raise LimitError(
            ErrorCode.LIMIT_PAYLOAD,
            f"the data may have at most {max_bytes} bytes",
            details={"limit": max_bytes},
        )
    return encoded
