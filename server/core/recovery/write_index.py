"""Which write brought which message of a topic, for as long as anybody may ask."""

from bisect import bisect_right
from collections import deque


class Written:
    """The writes of one topic, a message each; `max_messages` of them are remembered."""

    __slots__ = ("_first_seq", "_forgotten", "_max_messages", "_serials", "_times")

    def __init__(self, seq: int, *, max_messages: int) -> None:
        self._max_messages = max_messages
        self._serials: deque[int] = deque()
        self._times: deque[int] = deque()
        self._first_seq = seq + 1
        # The write of the message before the first that is remembered, where there was one.
        self._forgotten: int | None = None

    def append(self, serial: int, ts_ms: int) -> None:
        """The next message was numbered; it had come at this time."""
        self._serials.append(serial)
        self._times.append(ts_ms)
        if len(self._serials) > self._max_messages:
            self._forgotten = self._serials.popleft()
            self._times.popleft()
            self._first_seq += 1

    def begin_again(self, seq: int) -> None:
        """What comes next is not the next: none of what is remembered leads to it."""
        self._serials.clear()
        self._times.clear()
        self._first_seq = seq + 1
        self._forgotten = None

    def seq_at(self, serial: int, least: int) -> int | None:
        """The newest message at this write, for a client that has got at least so far.

        None where that is forgotten.
        """
        count = bisect_right(self._serials, serial)
        if count or (self._forgotten is not None and serial >= self._forgotten):
            return max(least, self._first_seq - 1 + count)
        return least if least >= self._first_seq - 1 else None

    def ts_after(self, seq: int) -> int | None:
        """When the message after this one had come; None where none has, or it is forgotten."""
        index = seq + 1 - self._first_seq
        return self._times[index] if 0 <= index < len(self._times) else None


class Rounds:
    """The writes of one pace: each brings all that had come until then. A few are remembered."""

    __slots__ = ("_forgotten", "_max_rounds", "_seqs", "_serials")

    def __init__(self, *, max_rounds: int) -> None:
        self._max_rounds = max_rounds
        self._serials: deque[int] = deque()
        self._seqs: deque[int] = deque()
        self._forgotten = 0

    def append(self, serial: int, seq: int) -> None:
        """One more write, and how far it reached."""
        self._serials.append(serial)
        self._seqs.append(seq)
        if len(self._serials) > self._max_rounds:
            self._forgotten = self._serials.popleft()
            self._seqs.popleft()

    def seq_at(self, serial: int, least: int) -> int | None:
        """How far the last write reached; `least` where none had been. None if forgotten."""
        count = bisect_right(self._serials, serial)
        if count:
            return max(least, self._seqs[count - 1])
        return None if self._forgotten else least
