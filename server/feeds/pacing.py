"""Paces a feed, and yields to other tasks if the feed is late."""

from collections.abc import Awaitable, Callable

from server.ports import Clock

Sleep = Callable[[float], Awaitable[None]]

# Publishing may never suspend: a late feed that never sleeps would block the event loop.
MAX_WITHOUT_SLEEP = 100


class Pacer:
    """Sleeps until one due time after another."""

    def __init__(self, clock: Clock, sleep: Sleep, *, min_sleep_seconds: float) -> None:
        self._clock = clock
        self._sleep = sleep
        # Timers cost time and are imprecise: a shorter sleep is skipped.
        self._min_sleep_seconds = min_sleep_seconds
        self._without_sleep = 0

    async def sleep_until(self, due: float) -> None:
        """Sleep until `due`; return at once if it is near or past."""
        wait = due - self._clock.monotonic()
        if wait < self._min_sleep_seconds:
            self._without_sleep += 1
            if self._without_sleep < MAX_WITHOUT_SLEEP:
                return
            wait = 0.0
        self._without_sleep = 0
        await self._sleep(wait)
