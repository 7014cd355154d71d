"""Tracks what one client has yet to receive, as positions instead of queued messages.

A slow client costs the same memory however far behind it is: the topics keep their messages once
for everybody, and a lag only records how far the client has come.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from client_sdk.contract import INTERVALS_MS

K = TypeVar("K", bound=Hashable)

# This many overflows within this time widen the client's interval by one step.
OVERFLOWS_TO_WIDEN = 4
OVERFLOW_WINDOW_SECONDS = 5.0
# This long without an overflow narrows it by one step again.
STEADY_SECONDS = 10.0


@dataclass(slots=True)
class Lag:
    """How far a client has come in one topic, and what else it must be sent there."""

    last_seq: int
    # The time of the first message that it has not received; None while it has all.
    oldest_ms: int | None = None
    # It has no state to apply a change to, or the messages it missed are gone.
    needs_snapshot: bool = False
    # The feed's status changed while the client could not be sent it.
    needs_status: bool = False
    # The next message does not follow on the client's position.
    needs_resync: bool = False
    # Pushes after this serial are pending; None if none are.
    pushed_serial: int | None = None

    @property
    def has_pending(self) -> bool:
        """True if the client must be sent something even at the newest position."""
        pushes = self.pushed_serial is not None
        return self.needs_snapshot or self.needs_status or self.needs_resync or pushes

    def miss(self, ts_ms: int | None) -> None:
        """Record the time of the first message that the client lacks; None if it lacks none."""
        self.oldest_ms = ts_ms

    def restart(self, seq: int, *, resync: bool, snapshot: bool) -> None:
        """Continue at another position, announced by a `resync`, and a snapshot if there is one."""
        if resync:
            self.needs_resync = self.needs_status = True
            self.needs_snapshot = snapshot
        if not self.needs_snapshot:
            self.last_seq, self.oldest_ms = seq, None

    def require_status(self) -> None:
        """Record that the feed's status must be sent."""
        self.needs_status = True

    def status_sent(self) -> None:
        """Record that the feed's status was sent."""
        self.needs_status = False

    def snapshot_taken(self) -> None:
        """Record that the events about to be sent begin with the snapshot."""
        self.needs_snapshot = False

    def pushes_sent(self, serial: int | None) -> None:
        """Record that pushes up to this serial were sent; None if none are pending."""
        self.pushed_serial = serial

    def reach(self, seq: int) -> None:
        """Record that all up to this message was sent."""
        self.last_seq = seq
        self.needs_resync = False


class Backlog(Generic[K]):
    """The topics in which a client is behind, and the interval the server holds it to."""

    __slots__ = (
        "_interval_index",
        "_overflows",
        "_queue",
        "_stalled_since",
        "_steady_since",
        "_taken",
    )

    def __init__(self) -> None:
        self._queue: dict[K, None] = {}
        self._overflows: list[float] = []
        self._interval_index = 0
        self._steady_since = 0.0
        # Since when the client has taken no bytes, and how many it had taken then.
        self._stalled_since: float | None = None
        self._taken = 0

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, key: K) -> None:
        """Record that the client is behind in this topic."""
        self._queue[key] = None

    def drop(self, key: K) -> None:
        """Remove a topic that is up to date or unsubscribed; a no-op for an unknown one."""
        self._queue.pop(key, None)

    def next_key(self) -> K | None:
        """The topic to serve now, round robin, so that no topic starves another; None if empty."""
        for key in self._queue:
            self._queue[key] = self._queue.pop(key)
            return key
        return None

    # --- the interval, wider for a slow client

    @property
    def interval_ms(self) -> int:
        """The shortest interval the client is served at, whatever it asked for."""
        return INTERVALS_MS[self._interval_index]

    def record_overflow(self, now: float) -> bool:
        """Record that the client's send buffer is full; returns if that widened the interval."""
        self._steady_since = now
        self._overflows = [when for when in self._overflows if when > now - OVERFLOW_WINDOW_SECONDS]
        self._overflows.append(now)
        if (
            len(self._overflows) < OVERFLOWS_TO_WIDEN
            or self._interval_index == len(INTERVALS_MS) - 1
        ):
            return False
        self._overflows.clear()
        self._interval_index += 1
        return True

    def try_narrow(self, now: float) -> bool:
        """Narrow the interval by a step if the client kept up for long enough; returns if so."""
        if not self._interval_index or now - self._steady_since < STEADY_SECONDS:
            return False
        self._steady_since = now
        self._interval_index -= 1
        return True

    def update_stall(self, now: float, taken_bytes: int) -> float:
        """Compare the bytes taken with the last call; returns for how many seconds none were."""
        if self._stalled_since is None or taken_bytes != self._taken:
            self._stalled_since, self._taken = now, taken_bytes
        return now - self._stalled_since

    def clear_stall(self) -> None:
        """Record that the client takes its bytes again."""
        self._stalled_since = None
