"""Token buckets: so many a second, with a burst."""

import math

# Who waits exactly as long as told must not be a billionth of a token short.
_ROUNDING = 1e-9


def milliseconds(wait_seconds: float) -> int:
    """A wait as clients are told it: rounded up, for who comes a little early is refused again."""
    return max(1, math.ceil(wait_seconds * 1000 - 1e-6))


class TokenBucket:
    """Fills at `rate` tokens a second up to `burst`; time comes from the caller."""

    __slots__ = ("_tokens", "_updated_at", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._updated_at = now

    def take(self, now: float, tokens: float = 1.0) -> float:
        """0 when granted; otherwise the seconds to wait, and nothing is taken."""
        if now > self._updated_at:
            # Asked for every event of a client, and min() and max() would be half of its cost.
            tokens_now = self._tokens + (now - self._updated_at) * self.rate
            if tokens_now > self.burst:
                tokens_now = self.burst
            self._tokens = tokens_now
            self._updated_at = now
        left = self._tokens - tokens
        if left >= -_ROUNDING:
            self._tokens = left
            return 0.0
        return -left / self.rate

    def refund(self, tokens: float = 1.0) -> None:
        """What was taken for something that did not happen."""
        self._tokens = min(self.burst, self._tokens + tokens)

    def full_at(self) -> float:
        """From this moment on the bucket is as good as a new one."""
        return self._updated_at + (self.burst - self._tokens) / self.rate
