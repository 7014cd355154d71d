"""Delays between connection attempts: exponential, with full jitter."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffConfig:
    """A delay lies between `least_seconds` and a bound.

    The bound starts at `first_seconds` and doubles up to `most_seconds`. The large first bound
    keeps clients apart that lost their server in the same moment: at five seconds, about 2% of
    them reconnect in any tenth of a second.
    """

    least_seconds: float = 0.1
    first_seconds: float = 5.0
    most_seconds: float = 20.0
    stable_seconds: float = 30.0


class Backoff:
    """Draws each delay at random between the least and the bound of its attempt."""

    def __init__(self, config: BackoffConfig, random: Callable[[], float]) -> None:
        self._config = config
        self._random = random
        self._attempts = 0

    def next_seconds(self) -> float:
        """The delay before the next attempt; each call counts as an attempt."""
        config = self._config
        # Bound the exponent: a client can be offline for weeks.
        bound = min(config.most_seconds, config.first_seconds * 2.0 ** min(self._attempts, 32))
        self._attempts += 1
        least = min(config.least_seconds, bound)
        return least + (bound - least) * self._random()

    def with_config(self, config: BackoffConfig) -> "Backoff":
        """A new backoff that draws from the same random source."""
        return Backoff(config, self._random)

    def reset_if_stable(self, uptime_seconds: float) -> None:
        """Start over with short delays if the last connection lasted long enough."""
        if uptime_seconds >= self._config.stable_seconds:
            self._attempts = 0
