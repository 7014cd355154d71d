"""Logs exceptions raised by delivery callbacks, once per exception type."""

import logging

logger = logging.getLogger(__name__)


class FailureLog:
    """Remembers logged exception types: one bug could log thousands of lines a second."""

    def __init__(self) -> None:
        self._logged_kinds: set[type[Exception]] = set()

    def report(self, failure: Exception) -> None:
        """Log the exception, unless one of its type was logged before."""
        kind = type(failure)
        if kind not in self._logged_kinds:
            self._logged_kinds.add(kind)
            # No message and no traceback: either may quote the published data.
            logger.error("delivery has failed", extra={"error": kind.__name__})
