"""Reads and writes Engine.IO and Socket.IO packets as text; no I/O."""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from client_sdk.contract import Body, ErrorBody, Reply
from client_sdk.errors import InvalidData, ProtocolError, error_from_body

ReplyT = TypeVar("ReplyT", bound=Reply)

# The server's limit; deeper nesting would end the connection, not just the request.
_MAX_DEPTH = 29


class PacketType(StrEnum):
    """The packet types that a server sends: Engine.IO (one digit), Socket.IO (`4` and a digit)."""

    OPEN = "0"
    CLOSE = "1"
    PING = "2"
    NOOP = "6"
    CONNECT = "40"
    DISCONNECT = "41"
    EVENT = "42"
    ACK = "43"
    CONNECT_ERROR = "44"


class Packet(NamedTuple):
    """One packet; `body` is JSON that is not parsed yet."""

    type: PacketType
    namespace: str = "/"
    ack_id: int | None = None
    event: str = ""
    body: str = ""


PONG = "3"
_TYPES = {each.value: each for each in PacketType}
_EVENT = re.compile(r'42(/[^,]*),\["([^"\\]*)",\{')
_HEAD = re.compile(r"(4[0-4])(?:(/[^,]*),)?([0-9]{1,15})?")


class Handshake(Body):
    """The payload of an Engine.IO OPEN packet."""

    sid: str
    pingInterval: int  # noqa: N815
    pingTimeout: int  # noqa: N815

    @property
    def timeout_seconds(self) -> float:
        """The longest silence of a healthy server, by the heartbeat of the Engine.IO protocol."""
        return (self.pingInterval + self.pingTimeout) / 1000


def decode_packet(text: str) -> Packet:
    """Read a text message; raises `ProtocolError` if it is no packet of a server."""
    usual = _EVENT.match(text)
    if usual is not None and text.endswith("}]"):
        # Almost every message, as a Floorcast server writes it.
        return Packet(PacketType.EVENT, usual[1], None, usual[2], text[usual.end() - 1 : -1])
    head = _HEAD.match(text)
    if head is None:
        packet_type = _TYPES.get(text[:1])
        if packet_type is None:
            raise ProtocolError("unknown packet type")
        return Packet(packet_type, body=text[1:])
    packet_type = _TYPES[head[1]]
    namespace = head[2] or "/"
    ack_id = head[3]
    start = head.end()
    if packet_type is PacketType.EVENT:
        event, body = _split_event(text, start)
        return Packet(packet_type, namespace, int(ack_id) if ack_id else None, event, body)
    if packet_type is PacketType.ACK:
        if not ack_id or text[start : start + 1] != "[" or text[-1] != "]":
            raise ProtocolError("malformed ACK packet")
        return Packet(packet_type, namespace, int(ack_id), body=text[start + 1 : -1])
    return Packet(packet_type, namespace, body=text[start:])


def _split_event(text: str, start: int) -> tuple[str, str]:
    """The event's name and its first argument, which stays unparsed text."""
    if text[start : start + 2] == '["' and text.endswith("}]"):
        end = text.find('"', start + 2)
        if text[end + 1 : end + 3] == ",{":
            return text[start + 2 : end], text[end + 2 : -1]
    # Valid JSON that a Floorcast server does not write: no argument, several, or blanks.
    try:
        event, *arguments = json.loads(text[start:])
    except (ValueError, TypeError):
        raise ProtocolError("malformed EVENT packet") from None
    if not isinstance(event, str):
        raise ProtocolError("EVENT packet without an event name")
    return event, json.dumps(arguments[0]) if arguments else "{}"


def parse_handshake(body: str) -> Handshake:
    """Read the handshake; raises `ProtocolError`."""
    try:
        return Handshake.model_validate_json(body)
    except ValidationError:
        raise ProtocolError("malformed Engine.IO handshake") from None


def parse_reply(model: type[ReplyT], body: str, *, partial: bool = False) -> ReplyT:
    """Read a reply; raises the server's error, or `ProtocolError` if it is malformed.

    With `partial`, a refusal is returned too: its parts carry the errors.
    """
    try:
        reply = model.model_validate_json(body)
    except ValidationError as error:
        raise ProtocolError(f"malformed reply: {error.errors()[0]['msg']}") from None
    if not reply.ok and not partial:
        raise error_from_body(reply.error or ErrorBody(code="server.internal"))
    return reply


def event_packet(namespace: str, ack_id: int, event: str, body: str) -> str:
    """An EVENT that asks for an acknowledgement."""
    return f'42{namespace},{ack_id}["{event}",{body}]'


def connect_packet(namespace: str, auth: Mapping[str, object]) -> str:
    """A CONNECT to a namespace."""
    return f"40{namespace},{json.dumps(auth)}"


def disconnect_packet(namespace: str) -> str:
    """A DISCONNECT from a namespace."""
    return f"41{namespace},"


def ack_packet(namespace: str, ack_id: int) -> str:
    """An empty ACK."""
    return f"43{namespace},{ack_id}[]"


def encode(data: Mapping[str, object]) -> str:
    """Encode as JSON that the server accepts; decimals, dates and models become text.

    Raises `InvalidData`.
    """
    try:
        plain = to_jsonable_python(dict(data), inf_nan_mode="constants")
        _validate(plain, _MAX_DEPTH)
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # A lone surrogate cannot be sent; encoding is the only way to find out.
        text.encode()
    except (ValueError, TypeError) as error:
        raise InvalidData(f"data is not a valid JSON object: {error}") from None
    return text


def _validate(value: object, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth == 0:
            raise ValueError("it is nested too deeply")
        for each in value.values() if isinstance(value, dict) else value:
            _validate(each, depth - 1)
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("an integer has more than 64 bits")
