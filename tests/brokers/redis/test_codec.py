"""Encoding of entries for Redis, and rejection of malformed ones."""

import pytest

from server.brokers.redis.log.codec import HEAD_FORMAT, decode_entry, encode_tail
from server.core.log.entries import Entry, Position

DATA = b'{"a":{"b":"}\\n"}}'
VALID = HEAD_FORMAT.encode() % (b"e1.2", 7) + encode_tail(DATA, 5, "update")


def test_decode_reverses_encode() -> None:
    assert decode_entry("A", VALID, 1000) == Entry("A", Position("e1.2", 7), 5, DATA)
    snapshot = HEAD_FORMAT.encode() % (b"e", 2**49) + encode_tail(b"{}", 5, "snapshot")
    assert decode_entry("A", snapshot, 1000) == Entry(
        "A", Position("e", 2**49), 5, b"{}", "snapshot"
    )


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\x00",
        b"null",
        VALID[:-1],
        VALID + b" ",
        VALID.replace(b'"v":1', b'"v":2'),
        VALID.replace(b'"update"', b'"heartbeat"'),
        VALID.replace(b'"e1.2"', b'"\\""'),
        VALID.replace(b'"e1.2"', b'""'),
        VALID.replace(b'"seq":7', b'"seq":-7'),
        VALID.replace(b'"seq":7', b'"seq":' + b"7" * 30),
        VALID.replace(DATA, b'"text"'),
        VALID.replace(DATA, b'{}},{"a":{}'),
        VALID.replace(DATA, b'{"a":\xff}'),
        b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
        VALID.decode(),
        7,
        None,
    ],
)
def test_decode_rejects_malformed_messages(message: object) -> None:
    assert decode_entry("A", message, 1000) is None


def test_decode_rejects_too_large_messages() -> None:
    assert decode_entry("A", VALID, len(VALID)) is not None
    assert decode_entry("A", VALID, len(VALID) - 1) is None
