"""Delays between connection attempts: exponential, with full jitter."""

import math
from collections.abc import Callable
from dataclasses import dataclass

# For a server that names no spread: it may have thousands of clients.
DEFAULT_SPREAD_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class BackoffConfig:
    """A delay lies between `least_seconds` and a bound.

    The bound starts at `first_seconds` and doubles up to `most_seconds`. Until that it is at least
    the spread that the server has named, which keeps clients apart that lost it in the same moment.
    A connection that lasted `stable_seconds` starts the bound over.
    """

    least_seconds: float = 0.1
    first_seconds: float = 0.5
    most_seconds: float = 20.0
    stable_seconds: float = 1.0


class Backoff:
    """Draws each delay at random between the least and the bound of its attempt.

    Until the first connection no delay exceeds `start_seconds`.
    """

    def __init__(
        self,
        config: BackoffConfig,
        random: Callable[[], float],
        *,
        start_seconds: float = math.inf,
    ) -> None:
        self._config = config
        self._random = random
        self._attempts = 0
        self._spread_seconds = 0.0
        self._most_seconds = min(config.most_seconds, start_seconds)

    def next_seconds(self) -> float:
        """The delay before the next attempt; each call counts as an attempt."""
        config = self._config
        # Bound the exponent: a client can be offline for weeks.
        bound = config.first_seconds * 2.0 ** min(self._attempts, 32)
        bound = min(self._most_seconds, max(bound, self._spread_seconds))
        self._attempts += 1
        least = min(config.least_seconds, bound)
        return least + (bound - least) * self._random()

    def with_config(self, config: BackoffConfig) -> "Backoff":
        """A new backoff that draws from the same random source."""
        return Backoff(config, self._random)

    def set_connected(self, spread_seconds: float) -> None:
        """Record a connection, and the spread that its server needs after it."""
        self._spread_seconds = spread_seconds
        self._most_seconds = self._config.most_seconds

    def reset_if_stable(self, uptime_seconds: float) -> None:
        """Start over with short delays if the last connection lasted long enough."""
        if uptime_seconds >= self._config.stable_seconds:
            self._attempts = 0
