"""Reads and writes Engine.IO and Socket.IO packets as text; no I/O."""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from client_sdk.contract.messages import Body
from client_sdk.errors import InvalidData, ProtocolError

# What the server takes; more would end the connection, not just the request.
_MAX_DEPTH = 29


class PacketType(StrEnum):
    """What can come from a server, by its first characters."""

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
    """One packet; `body` is JSON that nobody has read yet."""

    type: PacketType
    namespace: str = "/"
    ack_id: int | None = None
    event: str = ""
    body: str = ""


PONG = "3"
_TYPES = {kind.value: kind for kind in PacketType}
_HEAD = re.compile(r"(4[0-4])(?:(/[^,]*),)?([0-9]{1,15})?")


class Handshake(Body):
    """The Engine.IO handshake."""

    sid: str
    pingInterval: int  # noqa: N815
    pingTimeout: int  # noqa: N815

    @property
    def timeout_seconds(self) -> float:
        """After so long without a word the server is gone."""
        return (self.pingInterval + self.pingTimeout) / 1000


def decode_packet(text: str) -> Packet:
    """Read a text message; raises `ProtocolError` for what is none of a server's."""
    head = _HEAD.match(text)
    if head is None:
        kind = _TYPES.get(text[:1])
        if kind is None:
            raise ProtocolError("a packet of an unknown kind")
        return Packet(kind, body=text[1:])
    kind = _TYPES[head[1]]
    namespace = head[2] or "/"
    number = head[3]
    start = head.end()
    if kind is PacketType.EVENT:
        event, body = _split_event(text, start)
        return Packet(kind, namespace, int(number) if number else None, event, body)
    if kind is PacketType.ACK:
        if not number or text[start : start + 1] != "[" or text[-1] != "]":
            raise ProtocolError("an answer of no shape")
        return Packet(kind, namespace, int(number), body=text[start + 1 : -1])
    return Packet(kind, namespace, body=text[start:])


def _split_event(text: str, start: int) -> tuple[str, str]:
    """The name and the one argument of an event, which stays the text that it is."""
    if text[start : start + 2] == '["' and text.endswith("}]"):
        end = text.find('"', start + 2)
        if text[end + 1 : end + 3] == ",{":
            return text[start + 2 : end], text[end + 2 : -1]
    # Not as our server writes it: no argument, or something behind it.
    try:
        event, *arguments = json.loads(text[start:])
    except (ValueError, TypeError):
        raise ProtocolError("an event of no shape") from None
    if not isinstance(event, str):
        raise ProtocolError("an event without a name")
    return event, json.dumps(arguments[0]) if arguments else "{}"


def parse_handshake(body: str) -> Handshake:
    """Read the handshake."""
    try:
        return Handshake.model_validate_json(body)
    except ValidationError:
        raise ProtocolError("a handshake of no shape") from None


def event_packet(namespace: str, ack_id: int, event: str, body: str) -> str:
    """An event that wants an answer."""
    return f'42{namespace},{ack_id}["{event}",{body}]'


def connect_packet(namespace: str, auth: Mapping[str, object]) -> str:
    """The wish to come into a namespace."""
    return f"40{namespace},{json.dumps(auth)}"


def disconnect_packet(namespace: str) -> str:
    """The end of a namespace, on purpose."""
    return f"41{namespace},"


def ack_packet(namespace: str, ack_id: int) -> str:
    """The answer to an event that asked for one."""
    return f"43{namespace},{ack_id}[]"


def encode(data: Mapping[str, object]) -> str:
    """An object as JSON that the server takes; decimals, dates and models become text."""
    try:
        plain = to_jsonable_python(dict(data), inf_nan_mode="constants")
        _validate(plain, _MAX_DEPTH)
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # Half a character of two cannot be sent; finding out means encoding it.
        text.encode()
    except (ValueError, TypeError) as error:
        raise InvalidData(f"this is no JSON object: {error}") from None
    return text


def _validate(value: object, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth == 0:
            raise ValueError("it is nested too deeply")
        for each in value.values() if isinstance(value, dict) else value:
            _validate(each, depth - 1)
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("a number has more than 64 bits")
