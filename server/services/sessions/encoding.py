"""What the events and messages of sessions look like."""

from collections.abc import Iterable, Mapping

import orjson

from client_sdk.contract import SESSION_NAMESPACE, ErrorCode
from server.core.errors import LimitError, RequestError
from server.core.log.entries import Entry
from server.core.sessions.events import SessionEvent
from server.core.wire.packets import event_head
from server.core.wire.strict_json import dumps
from server.delivery.channel import Channel
from server.delivery.session_state import SessionState

Reply = dict[str, object]


def encode_event(name: str, event: SessionEvent, **fields: object) -> bytes:
    """An event about a session, without its closing bracket."""
    body = {"session_id": event.key[1], **fields, "ts": event.ts_ms}
    return event_head(SESSION_NAMESPACE, name, dumps(body))


def encode_signal(event: SessionEvent) -> bytes:
    """Something that a member says for the moment; its data is JSON already."""
    body = b'{"session_id":%b,"user_id":%b,"data":%b,"ts":%d}' % (
        orjson.dumps(event.key[1]),
        orjson.dumps(event.user_id),
        event.data,
        event.ts_ms,
    )
    return event_head(SESSION_NAMESPACE, "signal", body)


def message_bodies(channel: Channel, entries: Iterable[Entry]) -> list[orjson.Fragment]:
    """Messages for an answer."""
    view = channel.state
    assert isinstance(view, SessionState)
    return [orjson.Fragment(view.body(entry)) for entry in entries]


def encode_within(data: Mapping[str, object], max_bytes: int) -> bytes:
    """An object of a client's as JSON; refused where it is none, or too large."""
    try:
        encoded = dumps(dict(data))
    except ValueError as error:
        raise RequestError(ErrorCode.REQUEST_INVALID, str(error)) from None
    if len(encoded) > max_bytes:
        raise LimitError(
            ErrorCode.LIMIT_PAYLOAD,
            f"it may have {max_bytes} bytes",
            details={"limit": max_bytes},
        )
    return encoded
