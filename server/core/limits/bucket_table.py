"""Token buckets by key, such as an address: a bounded table of those seen lately."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from server.core.limits.token_bucket import TokenBucket

K = TypeVar("K", bound=Hashable)

_MAX_TRACKED = 65_536


class BucketTable(Generic[K]):
    """One bucket for each key, all with the same rate; `max_tracked` bounds the keys.

    A rate of 0 means no limit.
    """

    def __init__(self, rate: float, burst: float, *, max_tracked: int = _MAX_TRACKED) -> None:
        self._rate = rate
        self._burst = burst
        self._max_tracked = max_tracked
        # Least recently seen first, which is the order of eviction.
        self._buckets: OrderedDict[K, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: K, now: float) -> float:
        """Take a token of a key; returns 0 if granted, else the seconds to wait."""
        return self._bucket(key, now).take(now) if self._rate > 0 else 0.0

    def charge(self, key: K, now: float, tokens: float) -> None:
        """Take tokens that need not be there: what is taken later waits for them."""
        if self._rate > 0:
            self._bucket(key, now).charge(tokens)

    def _bucket(self, key: K, now: float) -> TokenBucket:
        buckets = self._buckets
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets[key] = TokenBucket(self._rate, self._burst, now)
            # An old bucket that is full again says no more than a new one. Checking the two oldest
            # for each new key keeps the table small without a full scan.
            for _ in range(2):
                oldest = next(iter(buckets))
                if oldest != key and (
                    buckets[oldest].full_at() <= now or len(buckets) > self._max_tracked
                ):
                    del buckets[oldest]
        else:
            buckets.move_to_end(key)
        return bucket
