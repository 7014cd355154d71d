"""The last messages of one topic, without a gap between them."""

from collections import deque
from itertools import islice

from server.core.log.entries import Entry


class History:
    """Bounded by count, by bytes, and by age where it is told one; the newest always stays."""

    __slots__ = ("_bytes", "_entries", "_max_age_ms", "_max_bytes", "_max_messages")

    def __init__(self, *, max_messages: int, max_bytes: int, max_age_ms: int | None = None) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._max_age_ms = max_age_ms
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

    def clear(self) -> None:
        """Let go of everything."""
        self._entries.clear()
        self._bytes = 0

    def append(self, entry: Entry) -> list[Entry]:
        """Take the next message; what had to go for it."""
        entries = self._entries
        entries.append(entry)
        self._bytes += len(entry.data)
        gone = []
        while len(entries) > 1 and (
            len(entries) > self._max_messages or self._bytes > self._max_bytes
        ):
            gone.append(self._drop_oldest())
        return gone + self.expire(entry.ts_ms)

    def prepend(self, entries: list[Entry]) -> None:
        """Take what came before the first that is here, as far as there is room."""
        first = self._entries[0].position.seq if self._entries else None
        for entry in reversed(entries):
            seq = entry.position.seq
            if first is not None and seq >= first:
                continue
            if first is not None and seq != first - 1:
                return
            size = self._bytes + len(entry.data)
            if len(self._entries) >= self._max_messages or size > self._max_bytes:
                return
            self._entries.appendleft(entry)
            self._bytes, first = size, seq

    def expire(self, now_ms: int) -> list[Entry]:
        """Let go of what has become too old; what that is."""
        gone: list[Entry] = []
        if self._max_age_ms is None:
            return gone
        entries = self._entries
        while len(entries) > 1 and entries[0].ts_ms + self._max_age_ms <= now_ms:
            gone.append(self._drop_oldest())
        return gone

    def _drop_oldest(self) -> Entry:
        oldest = self._entries.popleft()
        self._bytes -= len(oldest.data)
        return oldest

    def since(self, seq: int) -> list[Entry] | None:
        """Every message after this one, or None where some of them are gone."""
        if not self._entries:
            return []
        skipped = seq + 1 - self._entries[0].position.seq
        if skipped < 0:
            return None
        return list(islice(self._entries, skipped, None))

    def before(self, seq: int | None, limit: int) -> list[Entry]:
        """The last messages before this one, or the last of all, in their order."""
        if not self._entries:
            return []
        first = self._entries[0].position.seq
        end = len(self._entries) if seq is None else min(len(self._entries), max(0, seq - first))
        return list(islice(self._entries, max(0, end - limit), end))
