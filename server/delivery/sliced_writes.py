"""Writes to many links in slices, so that no delivery holds the event loop for long."""

from collections.abc import Callable, Iterable
from itertools import islice

from server.delivery.deferred_close import DeferredClose
from server.ports import Clock, Link

# Raised by a transport that has closed but has not reported it yet.
WRITE_ERRORS = (OSError, RuntimeError)
# The loop serves others between two slices. A slice is a number of writes, not of seconds: uvloop
# makes the system calls after the callbacks of a turn, so their time shows only in the next one.
_SLICE_SECONDS = 0.005
_MIN_WRITES = 64
_SECONDS_PER_WRITE = 5e-6
# Holding takes time of the slice, too: the share of a write.
_HOLD_COST = 0.1
# Fewer writes are not measured: the callback that ends a slice would cost as much as they do.
_MEASURED_WRITES = 16
# The weight of the last slice in the average cost of a write.
_WEIGHT = 0.25


class SlicedWrites:
    """The writes of one turn of the loop, and the frames that wait for the next turns.

    Ask `take` how many links may be written to, and `hold` the frames of the others. A link
    writes held frames first, so the order stays.
    """

    def __init__(
        self,
        clock: Clock,
        schedule: Callable[[Callable[[], None], float], object],
        deferred_close: DeferredClose,
        *,
        max_writes: int,
    ) -> None:
        self._clock = clock
        self._schedule = schedule
        self._deferred_close = deferred_close
        self._max_writes = max_writes
        self._held: dict[Link, None] = {}
        self._seconds_per_write = _SECONDS_PER_WRITE
        self._room = self._slice()
        self._is_measuring = False
        self._began = 0.0
        self._cost = 0
        self._on_done: Callable[[float], None] | None = None

    @property
    def held_count(self) -> int:
        """The number of links whose frames wait."""
        return len(self._held)

    def take(self, wanted: int) -> int:
        """Reserve writes in this slice; returns how many of them may be made now."""
        room = self._room
        if wanted <= room:
            return self._reserve(wanted, wanted)
        holding = int((wanted - room) * _HOLD_COST)
        granted = max(room - holding, min(room, _MIN_WRITES))
        return self._reserve(granted, room)

    def _reserve(self, count: int, cost: int) -> int:
        """Take writes at the cost of so many from this slice; returns their count."""
        self._room -= cost
        if self._is_measuring:
            self._cost += cost
        elif cost >= _MEASURED_WRITES or self._room < _MIN_WRITES:
            self._is_measuring = True
            self._began = self._clock.monotonic()
            self._cost = cost
            self._schedule(self._end_slice, 0.0)
        return count

    def write(self, link: Link, frames: bytes) -> None:
        """Write to one link of many, now or in one of the next slices; abort it on failure."""
        if self.take(1):
            self._write(link, frames)
        else:
            self.hold(link, frames)

    def hold(self, link: Link, frames: bytes) -> None:
        """Write to a link in one of the next slices; now if it holds frames already.

        So it holds one write at most. With what it holds, one more write still fits its buffer: a
        link is clogged at a quarter of it, which is the bound of a write, too.
        """
        if link in self._held:
            self._write(link, frames)
        else:
            link.hold(frames)
            self._held[link] = None

    def hold_all(self, links: Iterable[Link], frames: bytes) -> list[Link]:
        """Hold the same frames for many links; returns those that accept no plain frames."""
        held, skipped = self._held, []
        for link in links:
            if not link.accepts_plain:
                skipped.append(link)
            elif link in held:
                self._write(link, frames)
            else:
                link.hold(frames)
                held[link] = None
        return skipped

    def _write(self, link: Link, frames: bytes) -> None:
        try:
            link.write(frames)
        except WRITE_ERRORS:
            self._deferred_close.abort(link)

    def when_done(self, callback: Callable[[float], None]) -> None:
        """Call back once nothing waits, with the time; at once if this slice is not measured."""
        if self._is_measuring:
            self._on_done = callback
        else:
            callback(self._clock.monotonic())

    def _end_slice(self) -> None:
        now = self._clock.monotonic()
        self._is_measuring = False
        if self._cost:
            cost = (now - self._began) / self._cost
            self._seconds_per_write += (cost - self._seconds_per_write) * _WEIGHT
        self._room = self._slice()
        if self._held:
            self._release()
        elif self._on_done is not None:
            on_done, self._on_done = self._on_done, None
            on_done(now)

    def _release(self) -> None:
        """Write the frames of the links that have waited for longest."""
        # So much is always measured, and the end of this slice continues.
        cost = min(max(len(self._held), _MEASURED_WRITES), self._room)
        links = list(islice(self._held, self._reserve(cost, cost)))
        with self._deferred_close:
            for link in links:
                del self._held[link]
                try:
                    link.release()
                except WRITE_ERRORS:
                    self._deferred_close.abort(link)

    def _slice(self) -> int:
        """How many writes a slice may have."""
        writes = _SLICE_SECONDS / max(self._seconds_per_write, 1e-9)
        return int(min(max(writes, _MIN_WRITES), self._max_writes))
