"""Logs failing callbacks of the user, each at most once a minute."""

import logging
import time
from collections.abc import Callable

_INTERVAL_SECONDS = 60.0


class FailureLog:
    """The failures of one callback: the first with its traceback, then a count each minute."""

    def __init__(
        self,
        logger: logging.Logger,
        name: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._name = name
        self._monotonic = monotonic
        self._logged_at = float("-inf")
        self._hidden_count = 0

    def record(self, error: Exception) -> None:
        """Log an exception, or count it."""
        now = self._monotonic()
        if now - self._logged_at < _INTERVAL_SECONDS:
            self._hidden_count += 1
            return
        more = f" ({self._hidden_count} times since the last message)" if self._hidden_count else ""
        self._logger.error("%s failed%s", self._name, more, exc_info=error)
        self._logged_at, self._hidden_count = now, 0
