"""Writes log lines for people: when, how grave, who, what, and the fields beside it."""

import logging
import sys

# What every record has; anything else was put beside the text on purpose.
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FieldsFormatter(logging.Formatter):
    """Appends the fields of a record as `name=value`."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__(f"%(asctime)s %(levelname)s {prefix}%(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line before any traceback."""
        fields = {name: each for name, each in vars(record).items() if name not in _STANDARD_FIELDS}
        line = super().formatMessage(record)
        # `repr` keeps a value on one line, whatever a client has put into it.
        return " ".join([line, *(f"{name}={each!r}" for name, each in fields.items())])


def log_to_stderr(prefix: str = "") -> None:
    """Send what the server logs to stderr, from INFO on; `who` tells processes apart."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldsFormatter(prefix))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
