"""Decodes and encodes the bodies of polling requests (Engine.IO 4: packets joined by 0x1E)."""

from collections.abc import Iterable

from server.core.wire.errors import WireError

_SEPARATOR = "\x1e"


class MalformedPayload(WireError):
    """A polling body that is not a valid Engine.IO payload."""


def decode_payload(body: bytes, *, max_packets: int) -> list[str]:
    """The packets of one POST; raises `MalformedPayload` if any of it is invalid."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise MalformedPayload("payload is not valid UTF-8") from None
    if text.count(_SEPARATOR) >= max_packets:
        raise MalformedPayload("too many packets in one request")
    packets = text.split(_SEPARATOR)
    if not all(packets):
        raise MalformedPayload("empty packet")
    return packets


def encode_payload(packets: Iterable[bytes]) -> bytes:
    """The body of the response to a poll."""
    return b"\x1e".join(packets)
