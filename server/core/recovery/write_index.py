"""Maps the serials of writes to the entries of a topic, for the newest writes."""

from bisect import bisect_right
from collections import deque


class WriteIndex:
    """The writes of one topic, one entry each; the newest `max_messages` are indexed."""

    __slots__ = ("_dropped_serial", "_first_seq", "_max_messages", "_serials", "_times")

    def __init__(self, seq: int, *, max_messages: int) -> None:
        self._max_messages = max_messages
        self._serials: deque[int] = deque()
        self._times: deque[int] = deque()
        self._first_seq = seq + 1
        # The serial of the entry before the first indexed one; None if there was none.
        self._dropped_serial: int | None = None

    def append(self, serial: int, ts_ms: int, seq: int | None = None) -> None:
        """Index the write of the next entry, and the entry's time; its `seq` is known."""
        self._serials.append(serial)
        self._times.append(ts_ms)
        if len(self._serials) > self._max_messages:
            self._dropped_serial = self._serials.popleft()
            self._times.popleft()
            self._first_seq += 1

    def restart(self, seq: int) -> None:
        """Continue at another position; clears the index, which does not lead there."""
        self._serials.clear()
        self._times.clear()
        self._first_seq = seq + 1
        self._dropped_serial = None

    def seq_at(self, serial: int, min_seq: int) -> int | None:
        """The newest entry at this write, for a client that had at least `min_seq`.

        None if that write is no longer indexed.
        """
        count = bisect_right(self._serials, serial)
        if count or (self._dropped_serial is not None and serial >= self._dropped_serial):
            return max(min_seq, self._first_seq - 1 + count)
        return min_seq if min_seq >= self._first_seq - 1 else None

    def ts_after(self, seq: int) -> int | None:
        """The time of the entry after this one; None if there is none, or it is not indexed."""
        index = seq + 1 - self._first_seq
        return self._times[index] if 0 <= index < len(self._times) else None


class DerivedWriteIndex(WriteIndex):
    """The writes of a topic whose positions have holes."""

    __slots__ = ("_before_seq", "_seqs")

    def __init__(self, seq: int, *, max_messages: int) -> None:
        super().__init__(seq, max_messages=max_messages)
        self._seqs: deque[int] = deque()
        # The entry before the first indexed one.
        self._before_seq = seq

    def append(self, serial: int, ts_ms: int, seq: int | None = None) -> None:
        """Index the write of the next entry, and the entry's time and `seq`."""
        assert seq is not None
        super().append(serial, ts_ms)
        self._seqs.append(seq)
        if len(self._seqs) > len(self._serials):
            self._before_seq = self._seqs.popleft()

    def restart(self, seq: int) -> None:
        """Continue at another position; clears the index, which does not lead there."""
        super().restart(seq)
        self._seqs.clear()
        self._before_seq = seq

    def seq_at(self, serial: int, min_seq: int) -> int | None:
        """The newest entry at this write, for a client that had at least `min_seq`.

        None if that write is no longer indexed.
        """
        count = bisect_right(self._serials, serial)
        if count:
            return max(min_seq, self._seqs[count - 1])
        if self._dropped_serial is not None and serial >= self._dropped_serial:
            return max(min_seq, self._before_seq)
        return min_seq if min_seq >= self._before_seq else None

    def ts_after(self, seq: int) -> int | None:
        """The time of the entry after this one; None if there is none, or it is not indexed."""
        index = bisect_right(self._seqs, seq)
        return self._times[index] if seq >= self._before_seq and index < len(self._times) else None


class BatchIndex:
    """The writes of one interval, each with all entries until then; a few are indexed."""

    __slots__ = ("_dropped_serial", "_max_batches", "_seqs", "_serials")

    def __init__(self, *, max_batches: int) -> None:
        self._max_batches = max_batches
        self._serials: deque[int] = deque()
        self._seqs: deque[int] = deque()
        self._dropped_serial = 0

    def append(self, serial: int, seq: int) -> None:
        """Index a write, and the newest entry it contained."""
        self._serials.append(serial)
        self._seqs.append(seq)
        if len(self._serials) > self._max_batches:
            self._dropped_serial = self._serials.popleft()
            self._seqs.popleft()

    def seq_at(self, serial: int, min_seq: int) -> int | None:
        """The newest entry at this write, at least `min_seq`; None if no longer indexed."""
        count = bisect_right(self._serials, serial)
        if count:
            return max(min_seq, self._seqs[count - 1])
        return None if self._dropped_serial else min_seq
