"""How long to wait before the next attempt to connect: longer each time, and never in step."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffConfig:
    """Between `least_seconds` and a bound that doubles from `first_seconds` to `most_seconds`.

    The first bound is what keeps clients apart that lost their server in the same moment. With
    five seconds, hardly more than 2% of them come back in any tenth of a second.
    """

    least_seconds: float = 0.1
    first_seconds: float = 5.0
    most_seconds: float = 20.0
    stable_seconds: float = 30.0


class Backoff:
    """Full jitter: each delay is drawn between the least and the bound of its attempt."""

    def __init__(self, config: BackoffConfig, random: Callable[[], float]) -> None:
        self._config = config
        self._random = random
        self._attempts = 0

    def next_seconds(self) -> float:
        """The delay before the next attempt."""
        config = self._config
        # The exponent is bounded too: a client may be offline for weeks.
        bound = min(config.most_seconds, config.first_seconds * 2.0 ** min(self._attempts, 32))
        self._attempts += 1
        least = min(config.least_seconds, bound)
        return least + (bound - least) * self._random()

    def with_config(self, config: BackoffConfig) -> "Backoff":
        """One for something else, drawn in the same way."""
        return Backoff(config, self._random)

    def reset_if_stable(self, uptime_seconds: float) -> None:
        """A connection has ended after so long; one that was stable lets it begin anew."""
        if uptime_seconds >= self._config.stable_seconds:
            self._attempts = 0
