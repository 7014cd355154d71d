"""Packs and unpacks the bodies of polling requests: several packets in one text."""

from collections.abc import Iterable

from server.core.wire.errors import WireError

_SEPARATOR = "\x1e"


class MalformedPayload(WireError):
    """A polling body that we do not take."""


def decode_payload(body: bytes, *, max_packets: int) -> list[str]:
    """The packets of one POST; every one is delivered, or the whole is refused."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise MalformedPayload("text that is not UTF-8") from None
    if text.count(_SEPARATOR) >= max_packets:
        raise MalformedPayload("too many packets in one request")
    packets = text.split(_SEPARATOR)
    if not all(packets):
        raise MalformedPayload("an empty packet")
    return packets


def encode_payload(packets: Iterable[bytes]) -> bytes:
    """The body of the answer to a poll."""
    return b"\x1e".join(packets)
