"""Keeps a feed to its moments, and lets others run where there is nothing to wait for."""

from collections.abc import Awaitable, Callable

from server.ports import Clock

Sleep = Callable[[float], Awaitable[None]]

# Publishing may never suspend: a feed that is late would keep the whole process from its clients.
MAX_WITHOUT_SLEEP = 100


class Pacer:
    """Waits for one moment after the other."""

    def __init__(self, clock: Clock, sleep: Sleep, *, min_sleep_seconds: float) -> None:
        self._clock = clock
        self._sleep = sleep
        # Timers have a price and a grain: what is nearer than this is as good as now.
        self._min_sleep_seconds = min_sleep_seconds
        self._without_sleep = 0

    async def sleep_until(self, due: float) -> None:
        """Sleep until `due`, or go on at once if that is near or past."""
        wait = due - self._clock.monotonic()
        if wait < self._min_sleep_seconds:
            self._without_sleep += 1
            if self._without_sleep < MAX_WITHOUT_SLEEP:
                return
            wait = 0.0
        self._without_sleep = 0
        await self._sleep(wait)
