"""Keeps a feed to its moments, and lets others run where there is nothing to wait for."""

from collections.abc import Awaitable, Callable

from server.ports import Clock

Sleep = Callable[[float], Awaitable[None]]

# Publishing may never suspend: a feed that is late would keep the whole process from its clients.
MAX_UNRESTED = 100


class Pace:
    """Waits for one moment after the other."""

    def __init__(self, clock: Clock, sleep: Sleep, *, least_seconds: float) -> None:
        self._clock = clock
        self._sleep = sleep
        # Timers have a price and a grain: what is nearer than this is as good as now.
        self._least_seconds = least_seconds
        self._unrested = 0

    async def until(self, due: float) -> None:
        """Sleep until `due`, or go on at once if that is near or past."""
        wait = due - self._clock.monotonic()
        if wait < self._least_seconds:
            self._unrested += 1
            if self._unrested < MAX_UNRESTED:
                return
            wait = 0.0
        self._unrested = 0
        await self._sleep(wait)
