"""Formats log lines: for people on a console, or as one JSON object a line."""

import logging
import sys
from datetime import UTC, datetime

import orjson

from server.settings import LogSettings

# The attributes of every record; any other is an extra field.
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: each for name, each in vars(record).items() if name not in _STANDARD_FIELDS}


class ConsoleFormatter(logging.Formatter):
    """Appends the fields of a record as `name=value`."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__(f"%(asctime)s %(levelname)s {prefix}%(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line before any traceback."""
        line = super().formatMessage(record)
        # `repr` keeps a value on one line, whatever a client has put into it.
        return " ".join([line, *(f"{name}={each!r}" for name, each in _fields(record).items())])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, pid, message, the fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The object as text."""
        line: dict[str, object] = {
            **_fields(record),
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


def log_to_stderr(settings: LogSettings, *, prefix: str = "") -> None:
    """Send what the server logs to stderr; `prefix` tells processes apart on a console."""
    handler = logging.StreamHandler(sys.stderr)
    is_json = settings.format == "json"
    handler.setFormatter(JsonFormatter() if is_json else ConsoleFormatter(prefix))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # asyncio reports the selector it uses at DEBUG; nobody asks for that.
    logging.getLogger("asyncio").setLevel(max(logging.INFO, logging.getLogger().level))
