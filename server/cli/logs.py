"""Formats log records for people: time, level, logger, message and extra fields."""

import logging
import sys

# The attributes of every record; any other is an extra field.
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FieldsFormatter(logging.Formatter):
    """Appends the fields of a record as `name=value`."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__(f"%(asctime)s %(levelname)s {prefix}%(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line before any traceback."""
        fields = {name: each for name, each in vars(record).items() if name not in _STANDARD_FIELDS}
        line = super().formatMessage(record)
        # `repr` keeps a client's value on one line.
        return " ".join([line, *(f"{name}={each!r}" for name, each in fields.items())])


def log_to_stderr(prefix: str = "") -> None:
    """Log to stderr from INFO on; `prefix` distinguishes processes."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldsFormatter(prefix))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
