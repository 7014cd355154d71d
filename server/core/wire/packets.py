"""Reads and writes Socket.IO packets as text; what is not in our contract is refused."""

import re
from enum import StrEnum
from typing import NamedTuple

import orjson

from server.core.wire.errors import WireError
from server.core.wire.strict_json import MalformedJson, loads

MAX_EVENT_NAME = 64
# Digits are spelled out: `\d` and `isdigit` take those of every script.
_HEAD = re.compile(r"([0-3])(?:(/[A-Za-z0-9_/-]{0,63}),)?([0-9]{1,15})?")
# A namespace with nothing behind it may stand without the comma: "1/market".
_BARE = re.compile(r"[01](/[A-Za-z0-9_/-]{0,63})")
_RESERVED = frozenset(
    ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")
)


class PacketKind(StrEnum):
    """The packets that a client may send. Errors are ours to send; binary ones are not served."""

    CONNECT = "0"
    DISCONNECT = "1"
    EVENT = "2"
    ACK = "3"


_KINDS = {kind.value: kind for kind in PacketKind}


class MalformedPacket(WireError):
    """A text that is no packet of our contract."""


class Packet(NamedTuple):
    """A well-formed packet; `data` has the shape that its kind demands."""

    kind: PacketKind
    namespace: str
    id: int | None
    data: object


def decode_packet(text: str) -> Packet:
    """Read what stands behind the Engine.IO message type."""
    head = _HEAD.match(text)
    if head is None:
        raise MalformedPacket("not a packet")
    digit, namespace, digits = head.groups("")
    kind = _KINDS[digit]
    if kind is PacketKind.EVENT or kind is PacketKind.ACK:
        data = _arguments(text[head.end() :])
        if kind is PacketKind.EVENT:
            _check_event(data)
        elif not digits:
            raise MalformedPacket("an ACK without an id")
        return Packet(kind, namespace or "/", int(digits) if digits else None, data)
    bare = _BARE.fullmatch(text)
    if bare is not None:
        return Packet(kind, bare[1], None, None)
    rest = text[head.end() :]
    if digits or (rest and kind is PacketKind.DISCONNECT):
        raise MalformedPacket("something behind the packet")
    return Packet(kind, namespace or "/", None, _auth(rest) if rest else None)


def _arguments(text: str) -> list[object]:
    data = _json(text)
    if not isinstance(data, list):
        raise MalformedPacket("no array of arguments")
    return data


def _auth(text: str) -> dict[str, object]:
    data = _json(text)
    if not isinstance(data, dict):
        raise MalformedPacket("a CONNECT whose data is no object")
    return data


def _json(text: str) -> object:
    try:
        return loads(text)
    except MalformedJson as malformed:
        raise MalformedPacket(malformed.reason) from None


def _check_event(data: list[object]) -> None:
    if not data or not isinstance(data[0], str) or not 0 < len(data[0]) <= MAX_EVENT_NAME:
        raise MalformedPacket("an event without a name")
    if data[0] in _RESERVED:
        raise MalformedPacket("a reserved event")


def event_packet(namespace: str, event: str, *arguments: bytes, ack_id: int | None = None) -> bytes:
    """An event for a client, from the Engine.IO type on; the arguments are JSON already.

    With an identifier the client is asked to acknowledge it.
    """
    number = b"" if ack_id is None else b"%d" % ack_id
    return b"42%b%b[%b]" % (
        _prefix(namespace),
        number,
        b",".join((orjson.dumps(event), *arguments)),
    )


def event_head(namespace: str, event: str, body: bytes) -> bytes:
    """An event without its closing bracket: an offset may follow."""
    return event_packet(namespace, event, body)[:-1]


def ack_packet(namespace: str, ack_id: int, *arguments: bytes) -> bytes:
    """The answer to a client's event."""
    return b"43%b%d[%b]" % (_prefix(namespace), ack_id, b",".join(arguments))


def connect_packet(namespace: str, sid: str, pid: str | None = None) -> bytes:
    """The client is in; with `pid` it can be had back when it is cut off."""
    body = {"sid": sid} if pid is None else {"sid": sid, "pid": pid}
    return b"40%b%b" % (_prefix(namespace), orjson.dumps(body))


def connect_error_packet(namespace: str, message: str, data: object) -> bytes:
    """The client is not let in, and why."""
    return b"44%b%b" % (_prefix(namespace), orjson.dumps({"message": message, "data": data}))


def disconnect_packet(namespace: str) -> bytes:
    """The server ends a namespace; a stock client then stays away."""
    return b"41%b" % _prefix(namespace)


def _prefix(namespace: str) -> bytes:
    return b"" if namespace == "/" else namespace.encode() + b","
