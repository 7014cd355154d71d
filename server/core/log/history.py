"""The newest entries of one log, without a gap."""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from server.core.log.entries import Entry


@dataclass(frozen=True, slots=True)
class HistoryBounds:
    """What is kept of one channel, and of all of its kind."""

    messages: int = 1_000
    bytes: int = 1024 * 1024
    seconds: float = 300.0
    total_bytes: int = 256 * 1024 * 1024
    # What a client that comes back can be sent at once; older messages it must page.
    replay_messages: int = 2**53
    replay_bytes: int = 2**53

    def can_replay(self, entries: Sequence[Entry]) -> bool:
        """Whether these entries may be sent at once."""
        return len(entries) <= self.replay_messages and (
            sum(len(entry.data) for entry in entries) <= self.replay_bytes
        )


class History:
    """Entries bounded by count, bytes and, if given, age; the newest entry always stays."""

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
        """The total size of the entries' data."""
        return self._bytes

    @property
    def oldest(self) -> Entry | None:
        """The oldest entry that is kept; None if empty."""
        return self._entries[0] if self._entries else None

    @property
    def newest(self) -> Entry | None:
        """The newest entry; None if empty."""
        return self._entries[-1] if self._entries else None

    def clear(self) -> None:
        """Drop every entry."""
        self._entries.clear()
        self._bytes = 0

    def append(self, entry: Entry) -> list[Entry]:
        """Add the next entry; returns the entries dropped to make room."""
        entries = self._entries
        entries.append(entry)
        self._bytes += len(entry.data)
        max_age_ms = self._max_age_ms
        if (
            len(entries) <= self._max_messages
            and self._bytes <= self._max_bytes
            and (max_age_ms is None or entries[0].ts_ms + max_age_ms > entry.ts_ms)
        ):
            # Most of the time; each message is appended twice.
            return []
        dropped = []
        while len(entries) > 1 and (
            len(entries) > self._max_messages or self._bytes > self._max_bytes
        ):
            dropped.append(self._drop_oldest())
        return dropped + self.expire(entry.ts_ms)

    def prepend(self, entries: list[Entry]) -> None:
        """Add older entries as far as they fit and leave no gap; known ones are skipped."""
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
        """Drop and return the entries that are too old."""
        dropped: list[Entry] = []
        if self._max_age_ms is None:
            return dropped
        entries = self._entries
        while len(entries) > 1 and entries[0].ts_ms + self._max_age_ms <= now_ms:
            dropped.append(self._drop_oldest())
        return dropped

    def _drop_oldest(self) -> Entry:
        oldest = self._entries.popleft()
        self._bytes -= len(oldest.data)
        return oldest

    def since(self, seq: int) -> list[Entry] | None:
        """Every entry after this one; None if some of them are gone."""
        if not self._entries:
            return []
        skipped = seq + 1 - self._entries[0].position.seq
        if skipped < 0:
            return None
        return list(islice(self._entries, skipped, None))

    def before(self, seq: int | None, limit: int) -> list[Entry]:
        """The last `limit` entries before `seq`, or the newest if None; oldest first."""
        if not self._entries:
            return []
        first = self._entries[0].position.seq
        end = len(self._entries) if seq is None else min(len(self._entries), max(0, seq - first))
        return list(islice(self._entries, max(0, end - limit), end))


class DerivedHistory(History):
    """The newest entries of a derived log, whose positions have holes."""

    __slots__ = ()

    def since(self, seq: int) -> list[Entry] | None:
        """Every entry after this one; None if some of them are gone."""
        entries = self._entries
        if not entries:
            return []
        if seq < entries[0].prev:
            return None
        return list(islice(entries, bisect_right(entries, seq, key=_seq_of), None))


def _seq_of(entry: Entry) -> int:
    return entry.position.seq
