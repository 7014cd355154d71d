"""Encodes the events and messages of sessions."""

from collections.abc import Iterable, Mapping

import orjson

from client_sdk.contract import SESSION_NAMESPACE, ErrorCode
from server.core.errors import LimitError, RequestError
from server.core.log.entries import Entry
from server.core.sessions.events import SessionEvent
from server.core.sessions.session_state import SessionState
from server.core.wire.packets import event_head
from server.core.wire.strict_json import dumps
from server.delivery.channel import Channel

Reply = dict[str, object]


def encode_event(name: str, event: SessionEvent, **fields: object) -> bytes:
    """A session event without its closing bracket: each client's offset may follow."""
    body = {"session_id": event.key[1], **fields, "ts": event.ts_ms}
    return event_head(SESSION_NAMESPACE, name, dumps(body))


def encode_signal(event: SessionEvent) -> bytes:
    """A signal event without its closing bracket; its data is JSON already."""
    body = b'{"session_id":%b,"user_id":%b,"data":%b,"ts":%d}' % (
        orjson.dumps(event.key[1]),
        orjson.dumps(event.user_id),
        event.data,
        event.ts_ms,
    )
    return event_head(SESSION_NAMESPACE, "signal", body)


def message_bodies(channel: Channel, entries: Iterable[Entry]) -> list[orjson.Fragment]:
    """The bodies of session messages, for a reply."""
    state = channel.state
    assert isinstance(state, SessionState)
    return [orjson.Fragment(state.body(entry)) for entry in entries]


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
