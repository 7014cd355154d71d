"""Which write brought which message of a topic, for as long as anybody may ask."""

from bisect import bisect_right
from collections import deque


class WriteIndex:
    """The writes of one topic, a message each; `max_messages` of them are remembered."""

    __slots__ = ("_dropped_serial", "_first_seq", "_max_messages", "_serials", "_times")

    def __init__(self, seq: int, *, max_messages: int) -> None:
        self._max_messages = max_messages
        self._serials: deque[int] = deque()
        self._times: deque[int] = deque()
        self._first_seq = seq + 1
        # The write of the message before the first that is remembered, where there was one.
        self._dropped_serial: int | None = None

    def append(self, serial: int, ts_ms: int) -> None:
        """The next message was numbered; it had come at this time."""
        self._serials.append(serial)
        self._times.append(ts_ms)
        if len(self._serials) > self._max_messages:
            self._dropped_serial = self._serials.popleft()
            self._times.popleft()
            self._first_seq += 1

    def restart(self, seq: int) -> None:
        """What comes next is not the next: none of what is remembered leads to it."""
        self._serials.clear()
        self._times.clear()
        self._first_seq = seq + 1
        self._dropped_serial = None

    def seq_at(self, serial: int, min_seq: int) -> int | None:
        """The newest message at this write, for a client that has got at least so far.

        None where that is forgotten.
        """
        count = bisect_right(self._serials, serial)
        if count or (self._dropped_serial is not None and serial >= self._dropped_serial):
            return max(min_seq, self._first_seq - 1 + count)
        return min_seq if min_seq >= self._first_seq - 1 else None

    def ts_after(self, seq: int) -> int | None:
        """When the message after this one had come; None where none has, or it is forgotten."""
        index = seq + 1 - self._first_seq
        return self._times[index] if 0 <= index < len(self._times) else None


class BatchIndex:
    """The writes of one pace: each brings all that had come until then. A few are remembered."""

    __slots__ = ("_dropped_serial", "_max_batches", "_seqs", "_serials")

    def __init__(self, *, max_batches: int) -> None:
        self._max_batches = max_batches
        self._serials: deque[int] = deque()
        self._seqs: deque[int] = deque()
        self._dropped_serial = 0

    def append(self, serial: int, seq: int) -> None:
        """One more write, and how far it reached."""
        self._serials.append(serial)
        self._seqs.append(seq)
        if len(self._serials) > self._max_batches:
            self._dropped_serial = self._serials.popleft()
            self._seqs.popleft()

    def seq_at(self, serial: int, min_seq: int) -> int | None:
        """How far the last write reached; `least` where none had been. None if forgotten."""
        count = bisect_right(self._serials, serial)
        if count:
            return max(min_seq, self._seqs[count - 1])
        return None if self._dropped_serial else min_seq
