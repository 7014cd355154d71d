"""Plays a recording: the same messages in the same order, as far apart as they were."""

import asyncio
import contextlib
import logging
import math
from pathlib import Path

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError
from server.feeds.errors import FeedError
from server.feeds.pacing import Pacer, Sleep
from server.feeds.recording import read_recording, unreadable_error
from server.ports import FeedOptions, Publishing

logger = logging.getLogger(__name__)

# Times are whole milliseconds, and no timer is finer.
_MIN_SLEEP_SECONDS = 0.0005


class ReplayFeed:
    """Publishes the lines of a file, `{"ts", "topic", "data", "type"?, "user"?, "org"?}` each.

    The file is read as it plays, so it may be bigger than the memory.
    """

    def __init__(self, options: FeedOptions, *, sleep: Sleep = asyncio.sleep) -> None:
        if not options.argument:
            raise FeedError("replay needs a file: replay:FILE")
        if not 0 <= options.speed < math.inf:
            raise FeedError("the speed of a replay is a number from 0 on")
        self._path = Path(options.argument)
        try:
            self._path.open("rb").close()
        except OSError as error:
            raise unreadable_error(self._path, error) from None
        self._clock = options.clock
        self._speed = options.speed
        self._sleep = sleep

    async def run(self, publishing: Publishing) -> None:
        """Publish until the recording ends; raises `FeedError` at a line that makes no sense."""
        pace = Pacer(self._clock, self._sleep, min_sleep_seconds=_MIN_SLEEP_SECONDS)
        began = self._clock.monotonic()
        first_ts_ms: int | None = None
        refused: set[ErrorCode] = set()
        with contextlib.closing(read_recording(self._path)) as messages:
            for each in messages:
                if first_ts_ms is None:
                    first_ts_ms = each.ts_ms
                # From the beginning each time: what single sleeps take too long does not add up.
                await pace.sleep_until(began + self._seconds(each.ts_ms - first_ts_ms))
                try:
                    await publishing.publish(
                        each.topic, each.data, kind=each.kind, user=each.user, org=each.org
                    )
                except FloorcastError as error:
                    # A recording may be older than the server's rules. One record a code: what
                    # is refused as a whole must not fill the log.
                    if error.code not in refused:
                        refused.add(error.code)
                        self._log_refusal(each.line, error.code)

    def _log_refusal(self, line: int, code: ErrorCode) -> None:
        fields = {"file": str(self._path), "line": line, "code": code.value}
        logger.warning("a recorded message was refused", extra=fields)

    def _seconds(self, recorded_ms: int) -> float:
        return recorded_ms / 1000 / self._speed if self._speed else 0.0
