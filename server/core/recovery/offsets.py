"""Numbers the writes of one node, as the offsets of Socket.IO's connection state recovery.

A Socket.IO client takes the last argument of every event, if it is a string, as its offset, and
sends the last one back in CONNECT. One count serves the whole node: an event for many clients is
the same bytes for all of them.
"""

import re

from server.core.wire.frames import text_frame

_OFFSET = re.compile(r"([0-9a-z]{4})-([0-9]{1,15})")


def plain_frame(event: bytes) -> bytes:
    """Complete an event without an offset, for a client without recovery."""
    return text_frame(event + b"]")


class Offsets:
    """The write count of one node; `tag` distinguishes its offsets from those of other nodes."""

    __slots__ = ("_tag", "_tag_text", "last_serial")

    def __init__(self, tag: str) -> None:
        self._tag_text = tag
        self._tag = tag.encode()
        # The last allocated serial; everything up to it has been written.
        self.last_serial = 0

    def allocate(self, count: int = 1) -> int:
        """Allocate serials for this many writes; returns the first."""
        first = self.last_serial + 1
        self.last_serial += count
        return first

    def frame(self, event: bytes, serial: int) -> bytes:
        """Complete an event with its offset as the last argument."""
        return text_frame(b'%b,"%b-%d"]' % (event, self._tag, serial))

    def format(self, serial: int) -> str:
        """The offset of a write."""
        return f"{self._tag_text}-{serial}"

    def parse(self, offset: str | None) -> int | None:
        """The serial in a client's offset; None if this node did not issue it."""
        match = None if offset is None else _OFFSET.fullmatch(offset)
        if match is None or match[1] != self._tag_text:
            return None
        serial = int(match[2])
        return serial if serial <= self.last_serial else None
