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
    data: object


def decode_packet(text: str) -> Packet:
    """Decode the text after the Engine.IO message type; raises `MalformedPacket`."""
    head = _HEAD.match(text)
    if head is None:
        raise MalformedPacket("not a Socket.IO packet")
    digit, namespace, digits = head.groups("")
    kind = _KINDS[digit]
    if kind is PacketKind.EVENT or kind is PacketKind.ACK:
        data = _arguments(text[head.end() :])
        if kind is PacketKind.EVENT:
            _check_event(data)
        elif not digits:
            raise MalformedPacket("ACK without an id")
        return Packet(kind, namespace or "/", int(digits) if digits else None, data)
    bare = _BARE.fullmatch(text)
    if bare is not None:
        return Packet(kind, bare[1], None, None)
    rest = text[head.end() :]
    if digits or (rest and kind is PacketKind.DISCONNECT):
        raise MalformedPacket("unexpected data after the packet")
    return Packet(kind, namespace or "/", None, _auth(rest) if rest else None)


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


def _check_event(data: list[object]) -> None:
    if not data or not isinstance(data[0], str) or not 0 < len(data[0]) <= MAX_EVENT_NAME:
        raise MalformedPacket(f"an event needs a name of 1 to {MAX_EVENT_NAME} characters")
    if data[0] in _RESERVED:
        raise MalformedPacket("reserved event name")


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
