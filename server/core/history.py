"""The last messages of one topic, without a gap between them."""

from collections import deque
from itertools import islice

from server.core.entries import Entry


class History:
    """Bounded by count and by bytes; the newest message is always there."""

    __slots__ = ("_bytes", "_entries", "_max_bytes", "_max_messages")

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """What the data of the messages takes."""
        return self._bytes

    @property
    def oldest(self) -> Entry | None:
        """The first message that is still here."""
        return self._entries[0] if self._entries else None

    @property
    def newest(self) -> Entry | None:
        """The last message."""
        return self._entries[-1] if self._entries else None

    def append(self, entry: Entry) -> list[Entry]:
        """Take the next message; what had to go for it."""
        entries = self._entries
        entries.append(entry)
        self._bytes += len(entry.data)
        gone = []
        while len(entries) > 1 and (
            len(entries) > self._max_messages or self._bytes > self._max_bytes
        ):
            oldest = entries.popleft()
            self._bytes -= len(oldest.data)
            gone.append(oldest)
        return gone

    def since(self, seq: int) -> list[Entry] | None:
        """Every message after this one, or None where some of them are gone."""
        if not self._entries:
            return []
        skipped = seq + 1 - self._entries[0].position.seq
        if skipped < 0:
            return None
        return list(islice(self._entries, skipped, None))
