"""What a node uses, and what of it Redis does not know yet."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator

# Beyond this, what is pending is replaced by all that the node uses.
_MAX_PENDING = 100_000

# 'e', 'l' or 'a'; a subject or an event; how. Of a subject that was left, when.
_Update = tuple[bytes, bytes, bytes | float]


class OccupancyUpdates:
    """Updates in order, repeated until Redis has applied them."""

    def __init__(self, now: Callable[[], float], *, max_events: int) -> None:
        self._now = now
        self._max_events = max_events
        # The subjects in use, each with whether Redis has taken it for occupied.
        self._used: dict[bytes, bool] = {}
        self._pending: deque[_Update] = deque()
        self._event_count = 0
        self.must_rejoin = False

    def __bool__(self) -> bool:
        return bool(self._pending)

    def enter(self, subject: bytes, *, resumed: bool) -> None:
        """The node uses a subject."""
        self._used.setdefault(subject, False)
        self._add((b"e", subject, b"r" if resumed else b"n"))

    def leave(self, subject: bytes) -> None:
        """The node no longer uses a subject."""
        self._used.pop(subject, None)
        self._add((b"l", subject, self._now()))

    def append(self, event: bytes, key: bytes) -> bool:
        """Add an event; False, and it is dropped, if too many are pending."""
        if self._event_count >= self._max_events:
            return False
        self._event_count += 1
        self._pending.append((b"a", event, key))
        return True

    def rejoin(self) -> None:
        """Enter again what Redis knew: it may have lost it, or taken this node for dead."""
        self.must_rejoin = False
        known = [subject for subject, is_known in self._used.items() if is_known]
        self._pending.extendleft((b"e", subject, b"k") for subject in reversed(known))

    def first(self, limit: int) -> list[_Update]:
        """The oldest updates."""
        return list(itertools.islice(self._pending, limit))

    def confirm(self, updates: list[_Update]) -> None:
        """Remove the oldest updates: Redis has applied them."""
        for kind, what, _ in updates:
            self._pending.popleft()
            self._event_count -= kind == b"a"
            if kind == b"e" and what in self._used:
                self._used[what] = True

    def arguments(self, updates: list[_Update]) -> Iterator[bytes]:
        """The arguments of the script that applies these updates."""
        now = self._now()
        for kind, what, how in updates:
            yield kind
            yield what
            yield how if isinstance(how, bytes) else b"%d" % max(0, int((now - how) * 1000))

    def _add(self, update: _Update) -> None:
        if len(self._pending) - self._event_count >= _MAX_PENDING:
            # Under another name: what this one has left, the others find gone.
            self.must_rejoin = True
            self._pending = deque(each for each in self._pending if each[0] == b"a")
            for subject, is_known in self._used.items():
                if not is_known:
                    self._pending.append((b"e", subject, b"n"))
            return
        self._pending.append(update)
