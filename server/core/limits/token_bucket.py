"""Token buckets: a steady rate with a burst."""

import math

# A client that waits exactly as long as it was asked to must not be a billionth of a token short.
_ROUNDING = 1e-9


def milliseconds(wait_seconds: float) -> int:
    """A wait as `retry_after_ms`: rounded up, because an early retry is refused again."""
    return max(1, math.ceil(wait_seconds * 1000 - 1e-6))


class TokenBucket:
    """A bucket that fills at `rate` tokens a second up to `burst`; callers pass the time."""

    __slots__ = ("_tokens", "burst", "rate", "updated_at")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        # When tokens were last taken, or asked for.
        self.updated_at = now

    def take(self, now: float, tokens: float = 1.0) -> float:
        """Take tokens; returns 0 if granted, else the seconds to wait and takes nothing."""
        if now > self.updated_at:
            # Runs for every event of a client; min() and max() would be half of its cost.
            available = self._tokens + (now - self.updated_at) * self.rate
            if available > self.burst:
                available = self.burst
            self._tokens = available
            self.updated_at = now
        left = self._tokens - tokens
        if left >= -_ROUNDING:
            self._tokens = left
            return 0.0
        return -left / self.rate

    def charge(self, tokens: float) -> None:
        """Take tokens that need not be there: what is taken later waits for them."""
        self._tokens -= tokens

    def refund(self, tokens: float = 1.0) -> None:
        """Return tokens that were taken for a refused action."""
        self._tokens = min(self.burst, self._tokens + tokens)

    def full_at(self) -> float:
        """The time from which the bucket is full, like a new one."""
        return self.updated_at + (self.burst - self._tokens) / self.rate
