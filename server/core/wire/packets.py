"""Decodes and encodes Socket.IO packets as text, protocol 5 without binary packets."""

import re
from enum import StrEnum
from typing import NamedTuple

import orjson

from server.core.wire.errors import WireError
from server.core.wire.strict_json import MalformedJson, loads

MAX_EVENT_NAME = 64
# Digits are spelled out: `\d` and `isdigit` accept those of every script.
_HEAD = re.compile(r"([0-3])(?:(/[A-Za-z0-9_/-]{0,63}),)?([0-9]{1,15})?")
# Without data, the comma after the namespace is optional: "1/market".
_BARE = re.compile(r"[01](/[A-Za-z0-9_/-]{0,63})")
_NAME = re.compile(r'\["([^"\\]{1,64})"')
_RESERVED = frozenset(
    ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")
)


class PacketKind(StrEnum):
    """The packet types that a client may send: no CONNECT_ERROR, no binary ones."""

    CONNECT = "0"
    DISCONNECT = "1"
    EVENT = "2"
    ACK = "3"


_KINDS = {kind.value: kind for kind in PacketKind}


class MalformedPacket(WireError):
    """Text that is not a Socket.IO packet, or one that the server refuses."""


class Packet(NamedTuple):
    """A well-formed packet; `data` has the shape that its kind requires."""

    kind: PacketKind
    namespace: str
    id: int | None
    data: list[object] | dict[str, object] | None


class RawPacket(NamedTuple):
    """A packet whose head is well-formed, and whose body is still text.

    Packets wait in this form: parsed JSON takes many times the memory of its text.
    """

    kind: PacketKind
    namespace: str
    id: int | None
    body: str

    @property
    def event_name(self) -> str:
        """The name of an EVENT as it is written, without its JSON checked; "" if there is none."""
        name = _NAME.match(self.body)
        return "" if name is None else name[1]

    def decode(self) -> Packet:
        """Parse the body; raises `MalformedPacket`."""
        kind, namespace, ack_id, body = self
        data: list[object] | dict[str, object] | None = None
        if kind is PacketKind.EVENT:
            data = _event(body)
        elif kind is PacketKind.ACK:
            data = _arguments(body)
        elif body:
            data = _auth(body)
        return Packet(kind, namespace, ack_id, data)


def read_packet(text: str) -> RawPacket:
    """Check the head of the text after the Engine.IO message type; raises `MalformedPacket`."""
    head = _HEAD.match(text)
    if head is None:
        raise MalformedPacket("not a Socket.IO packet")
    digit, namespace, digits = head.groups("")
    kind = _KINDS[digit]
    body = text[head.end() :]
    if kind is PacketKind.EVENT or kind is PacketKind.ACK:
        if kind is PacketKind.ACK and not digits:
            raise MalformedPacket("ACK without an id")
        return RawPacket(kind, namespace or "/", int(digits) if digits else None, body)
    bare = _BARE.fullmatch(text)
    if bare is not None:
        return RawPacket(kind, bare[1], None, "")
    if digits or (body and kind is PacketKind.DISCONNECT):
        raise MalformedPacket("unexpected data after the packet")
    return RawPacket(kind, namespace or "/", None, body)


def _arguments(text: str) -> list[object]:
    data = _json(text)
    if not isinstance(data, list):
        raise MalformedPacket("arguments must be an array")
    return data


def _auth(text: str) -> dict[str, object]:
    data = _json(text)
    if not isinstance(data, dict):
        raise MalformedPacket("CONNECT data must be an object")
    return data


def _json(text: str) -> object:
    try:
        return loads(text)
    except MalformedJson as malformed:
        raise MalformedPacket(malformed.reason) from None


def _event(text: str) -> list[object]:
    data = _arguments(text)
    if not data or not isinstance(data[0], str) or not 0 < len(data[0]) <= MAX_EVENT_NAME:
        raise MalformedPacket(f"an event needs a name of 1 to {MAX_EVENT_NAME} characters")
    if data[0] in _RESERVED:
        raise MalformedPacket("reserved event name")
    return data


def is_event_name(name: str) -> bool:
    """Whether an event may have this name (Socket.IO protocol, EVENT)."""
    return 0 < len(name) <= MAX_EVENT_NAME and name not in _RESERVED


def event_packet(namespace: str, event: str, *arguments: bytes, ack_id: int | None = None) -> bytes:
    """An EVENT with its Engine.IO type; the arguments are JSON already.

    With an `ack_id` the client acknowledges it.
    """
    number = b"" if ack_id is None else b"%d" % ack_id
    return b"42%b%b[%b]" % (
        _prefix(namespace),
        number,
        b",".join((orjson.dumps(event), *arguments)),
    )


def event_head(namespace: str, event: str, body: bytes) -> bytes:
    """An EVENT without its closing bracket: an offset may follow."""
    return event_packet(namespace, event, body)[:-1]


def ack_packet(namespace: str, ack_id: int, *arguments: bytes) -> bytes:
    """The ACK of a client's event."""
    return b"43%b%d[%b]" % (_prefix(namespace), ack_id, b",".join(arguments))


def connect_packet(namespace: str, sid: str, pid: str | None = None) -> bytes:
    """The CONNECT that accepts a client; with a `pid` it can resume the connection later."""
    body = {"sid": sid} if pid is None else {"sid": sid, "pid": pid}
    return b"40%b%b" % (_prefix(namespace), orjson.dumps(body))


def connect_error_packet(namespace: str, message: str, data: object) -> bytes:
    """The CONNECT_ERROR that refuses a client."""
    return b"44%b%b" % (_prefix(namespace), orjson.dumps({"message": message, "data": data}))


def disconnect_packet(namespace: str) -> bytes:
    """The DISCONNECT of a namespace; stock clients do not reconnect after it."""
    return b"41%b" % _prefix(namespace)


def _prefix(namespace: str) -> bytes:
    return b"" if namespace == "/" else namespace.encode() + b","
