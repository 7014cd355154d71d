"""Reduces aiohttp's log of a malformed HTTP request to one line without a traceback."""

import logging

from aiohttp.http_exceptions import HttpProcessingError

HTTP_LOGGER = logging.getLogger("server.transport.http")


def _drop_traceback(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    if kind is not None and issubclass(kind, HttpProcessingError):
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        # aiohttp's message has one argument, the address.
        record.msg = "refused a malformed HTTP request from %s"
    return True


HTTP_LOGGER.addFilter(_drop_traceback)
