"""What one client has yet to get, as positions: it costs the same whether little or much waits.

Nothing is queued for a client that does not take its bytes. The topics keep what they must, once
for everybody; the outbox only knows how far the client has come in each.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from client_sdk.contract import INTERVALS_MS

K = TypeVar("K", bound=Hashable)

# So many falls within this time, and the client is served less often.
OVERFLOWS_TO_WIDEN = 4
OVERFLOW_WINDOW_SECONDS = 5.0
# Calm for this long, and it is served a step more often again.
STEADY_SECONDS = 10.0


@dataclass(slots=True)
class Lag:
    """How far a client has come in one topic, and what it must be told besides."""

    last_seq: int
    # When the first message came that it has not got; None while it has all.
    oldest_ms: int | None = None
    # It has no state to apply a change to, or what it missed is gone.
    needs_snapshot: bool = False
    # The feed's state changed while it could not be told.
    needs_status: bool = False
    # What comes next does not follow on what it has.
    needs_resync: bool = False
    # What was told apart from messages after this write is owed too; None where nothing is.
    pushed_serial: int | None = None

    @property
    def has_pending(self) -> bool:
        """Whether it is to be told something, wherever it stands."""
        told = self.pushed_serial is not None
        return self.needs_snapshot or self.needs_status or self.needs_resync or told


class Backlog(Generic[K]):
    """The topics that a client is behind in, and how patient the server still is with it."""

    __slots__ = (
        "_interval_index",
        "_lags",
        "_overflows",
        "_steady_since",
        "stalled_since",
        "taken_bytes",
    )

    def __init__(self) -> None:
        self._lags: dict[K, Lag] = {}
        self._overflows: list[float] = []
        self._interval_index = 0
        self._steady_since = 0.0
        # Since when the client has taken nothing, and what it had taken then.
        self.stalled_since: float | None = None
        self.taken_bytes = 0

    def __len__(self) -> int:
        return len(self._lags)

    def __iter__(self) -> Iterator[K]:
        return iter(self._lags)

    def put(self, key: K, lag: Lag) -> None:
        """The client did not get what came in this topic."""
        self._lags[key] = lag

    def get(self, key: K) -> Lag | None:
        """How far it has come there; None where it has everything."""
        return self._lags.get(key)

    def drop(self, key: K) -> None:
        """It has everything, or wants nothing more of this topic."""
        self._lags.pop(key, None)

    def next_key(self) -> K | None:
        """The topic to serve now; each goes to the end of the row, so that none starves another."""
        for key in self._lags:
            self._lags[key] = self._lags.pop(key)
            return key
        return None

    # --- the ladder

    @property
    def interval_ms(self) -> int:
        """The pace that the client is held to, whatever it asked for."""
        return INTERVALS_MS[self._interval_index]

    def record_overflow(self, now: float) -> bool:
        """The client's way is full; whether it is to be served less often from now on."""
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
        """Whether it kept up for long enough to be served more often again."""
        if not self._interval_index or now - self._steady_since < STEADY_SECONDS:
            return False
        self._steady_since = now
        self._interval_index -= 1
        return True

    def update_stall(self, now: float, taken_bytes: int) -> float:
        """For how long the client has taken nothing at all."""
        if self.stalled_since is None or taken_bytes != self.taken_bytes:
            self.stalled_since, self.taken_bytes = now, taken_bytes
        return now - self.stalled_since

    def clear_stall(self) -> None:
        """The client takes its bytes again."""
        self.stalled_since = None
