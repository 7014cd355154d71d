"""Counts and logs refusals: the first of a kind at once, repeated ones as a count."""

import logging
from dataclasses import dataclass

from server.core.counters import Counters
from server.ports import Clock

logger = logging.getLogger(__name__)

# One line for each code and address in this time; a refused client that retries is one story.
_INTERVAL_SECONDS = 10.0
# And so many kinds at most: an attack from many addresses is summed up by code.
_MAX_KINDS = 100
_ANY_ADDRESS = "(many)"


@dataclass(slots=True)
class _Kind:
    reason: str
    logged_at: float
    unlogged: int = 0


class RefusalLog:
    """Writes one line for each code and address in ten seconds, with the count since the last.

    Every refusal is counted by its code, in `clients.refused`. Call `tick` regularly: it writes the
    counts of refusals that have stopped.
    """

    def __init__(self, clock: Clock, counters: Counters) -> None:
        self._clock = clock
        self._counters = counters
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def record(self, code: str, reason: str, address: str) -> None:
        """Count a refusal, and log it unless its kind was logged a moment ago."""
        self._counters.count("clients.refused", code)
        now = self._clock.monotonic()
        key = (code, address)
        if key not in self._kinds and len(self._kinds) >= _MAX_KINDS:
            key = (code, _ANY_ADDRESS)
        kind = self._kinds.get(key)
        if kind is None:
            self._kinds[key] = _Kind(reason, now)
            self._log(key, reason, 1)
            return
        kind.reason = reason
        kind.unlogged += 1

    def tick(self) -> None:
        """Log the counts that are due, and forget the kinds that have stopped."""
        now = self._clock.monotonic()
        for key, kind in list(self._kinds.items()):
            if now - kind.logged_at < _INTERVAL_SECONDS:
                continue
            if not kind.unlogged:
                del self._kinds[key]
                continue
            self._log(key, kind.reason, kind.unlogged)
            kind.logged_at, kind.unlogged = now, 0

    def _log(self, key: tuple[str, str], reason: str, count: int) -> None:
        code, address = key
        logger.info(
            "refused a client: %s", reason, extra={"code": code, "ip": address, "count": count}
        )
