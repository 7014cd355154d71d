"""Numbers what is written to clients, in the order of writing; a client says the last it has seen.

Socket.IO's connection state recovery takes the last argument of every event, where that is text,
for the client's offset. One count serves the whole node: an event that goes to many clients is the
same bytes for all of them.
"""

import re

from server.core.wire.frames import text_frame

_OFFSET = re.compile(r"([0-9a-z]{4})-([0-9]{1,15})")


def plain_frame(event: bytes) -> bytes:
    """An event without its closing bracket, for a client that wants no offsets."""
    return text_frame(event + b"]")


class Offsets:
    """The count of one node; `tag` tells its offsets from those of any other."""

    __slots__ = ("_tag", "_tag_text", "last_serial")

    def __init__(self, tag: str) -> None:
        self._tag_text = tag
        self._tag = tag.encode()
        # What was numbered last; everything up to it has been written.
        self.last_serial = 0

    def allocate(self, count: int = 1) -> int:
        """Number so many writes; the first one's number."""
        first = self.last_serial + 1
        self.last_serial += count
        return first

    def frame(self, event: bytes, serial: int) -> bytes:
        """An event without its closing bracket, with its offset as the last argument."""
        return text_frame(b'%b,"%b-%d"]' % (event, self._tag, serial))

    def format(self, serial: int) -> str:
        """The offset that goes with a write."""
        return f"{self._tag_text}-{serial}"

    def parse(self, offset: str | None) -> int | None:
        """The number in a client's offset; None where it is none of this node's."""
        match = None if offset is None else _OFFSET.fullmatch(offset)
        if match is None or match[1] != self._tag_text:
            return None
        serial = int(match[2])
        return serial if serial <= self.last_serial else None
