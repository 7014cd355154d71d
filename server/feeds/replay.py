"""The replay feed: publishes a recording in its order and at its recorded intervals."""

import asyncio
import contextlib
import logging
import math
from pathlib import Path

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError
from server.feeds.errors import FeedError
from server.feeds.pacing import Pacer, Sleep
from server.feeds.parquet import SUFFIX, import_pyarrow, read_parquet
from server.feeds.recording import read_recording, unreadable_error
from server.ports import FeedOptions, Publishing

logger = logging.getLogger(__name__)

# Recorded times have a resolution of 1 ms.
_MIN_SLEEP_SECONDS = 0.0005


class ReplayFeed:
    """Publishes a file of lines `{"ts", "topic", "data", "type"?, "user"?, "org"?}`, or Parquet.

    It reads the file bit by bit, so the file may exceed the memory.
    """

    def __init__(self, options: FeedOptions, *, sleep: Sleep = asyncio.sleep) -> None:
        if not options.argument:
            raise FeedError("replay needs a file: replay:FILE")
        if not 0 <= options.speed < math.inf:
            raise FeedError("the speed of a replay must be a number of at least 0")
        self._path = Path(options.argument)
        try:
            self._path.open("rb").close()
        except OSError as error:
            raise unreadable_error(self._path, error) from None
        self._read = read_recording
        if self._path.suffix == SUFFIX:
            import_pyarrow()
            self._read = read_parquet
        self._clock = options.clock
        self._speed = options.speed
        self._sleep = sleep

    async def run(self, publishing: Publishing) -> None:
        """Publish until the recording ends; raises `FeedError` at a malformed line."""
        pacer = Pacer(self._clock, self._sleep, min_sleep_seconds=_MIN_SLEEP_SECONDS)
        started_at = self._clock.monotonic()
        first_ts_ms: int | None = None
        refused: set[ErrorCode] = set()
        with contextlib.closing(self._read(self._path)) as messages:
            for message in messages:
                if first_ts_ms is None:
                    first_ts_ms = message.ts_ms
                # Relative to the start, so that late sleeps do not add up.
                await pacer.sleep_until(started_at + self._seconds(message.ts_ms - first_ts_ms))
                try:
                    await publishing.publish(
                        message.topic,
                        message.data,
                        kind=message.kind,
                        user=message.user,
                        org=message.org,
                    )
                except FloorcastError as error:
                    # A recording can be older than the server's rules. Log each code once, so
                    # that a recording refused as a whole does not fill the log.
                    if error.code not in refused:
                        refused.add(error.code)
                        self._log_refusal(message.line, error.code)

    def _log_refusal(self, line: int, code: ErrorCode) -> None:
        fields = {"file": str(self._path), "line": line, "code": code.value}
        logger.warning("a recorded message was refused", extra=fields)

    def _seconds(self, recorded_ms: int) -> float:
        return recorded_ms / 1000 / self._speed if self._speed else 0.0
