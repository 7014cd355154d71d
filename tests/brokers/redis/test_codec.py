"""Entries as Redis has them: written once, and read with suspicion."""

import pytest

from server.brokers.redis.log.codec import HEAD, decode, tail
from server.core.log.entries import Entry, Position

DATA = b'{"a":{"b":"}\\n"}}'
GOOD = HEAD.encode() % (b"e1.2", 7) + tail(DATA, 5, "update")


def test_what_was_written_is_read() -> None:
    assert decode("A", GOOD, 1000) == Entry("A", Position("e1.2", 7), 5, DATA)
    snapshot = HEAD.encode() % (b"e", 2**49) + tail(b"{}", 5, "snapshot")
    assert decode("A", snapshot, 1000) == Entry("A", Position("e", 2**49), 5, b"{}", "snapshot")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\x00",
        b"null",
        GOOD[:-1],
        GOOD + b" ",
        GOOD.replace(b'"v":1', b'"v":2'),
        GOOD.replace(b'"update"', b'"heartbeat"'),
        GOOD.replace(b'"e1.2"', b'"\\""'),
        GOOD.replace(b'"e1.2"', b'""'),
        GOOD.replace(b'"seq":7', b'"seq":-7'),
        GOOD.replace(b'"seq":7', b'"seq":' + b"7" * 30),
        GOOD.replace(DATA, b'"text"'),
        GOOD.replace(DATA, b'{}},{"a":{}'),
        GOOD.replace(DATA, b'{"a":\xff}'),
        b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
        GOOD.decode(),
        7,
        None,
    ],
)
def test_what_no_node_of_ours_has_written_is_nothing(message: object) -> None:
    assert decode("A", message, 1000) is None


def test_an_entry_that_is_too_large_is_nothing() -> None:
    assert decode("A", GOOD, len(GOOD)) is not None
    assert decode("A", GOOD, len(GOOD) - 1) is None
