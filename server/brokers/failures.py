"""Says once of each kind that whoever was told of an entry could not take it."""

import logging

logger = logging.getLogger(__name__)


class FailureLog:
    """The kinds that were said already: each would come with every message, thousands a second."""

    def __init__(self) -> None:
        self._logged_kinds: set[type[Exception]] = set()

    def report(self, failure: Exception) -> None:
        """Log it, unless one like it was."""
        kind = type(failure)
        if kind not in self._logged_kinds:
            self._logged_kinds.add(kind)
            # Neither its words nor its traceback's: either may quote the message.
            logger.error("delivery has failed", extra={"error": kind.__name__})
