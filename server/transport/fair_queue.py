"""Shares the event loop's time: connections that took more than their budget wait for a turn."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from server.core.limits.time_budget import BUDGET_SECONDS
from server.ports import Clock
from server.tasks import TaskOwner

# The time that all waiting connections together get between two polls of the network.
_SERVE_SECONDS = 0.004


class Waiter(Protocol):
    """Something that waits in the queue."""

    def take_turn(self) -> float:
        """Do a little work, and `add` itself again for more; must not raise.

        Returns the seconds that the work will take after this call.
        """


class FairQueue:
    """Serves the waiting connections in rounds, for some milliseconds in each turn of the loop.

    Those within their budget never wait here, so what they do is delayed by a few milliseconds
    at most, however many others ask for more.
    """

    def __init__(
        self, clock: Clock, tasks: TaskOwner, cpu_seconds: Callable[[], float] = time.thread_time
    ) -> None:
        self.clock = clock
        # Here, and not in each connection: they start the tasks of packets that wait.
        self.tasks = tasks
        self.cpu_seconds = cpu_seconds
        self._waiting: deque[Waiter] = deque()
        self._is_scheduled = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, waiter: Waiter) -> None:
        """Give a turn to this waiter, after those who wait already."""
        self._waiting.append(waiter)
        self._schedule()

    def turn(self) -> Any:
        """What a coroutine has to yield to its task in order to wait for a turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(_SuspendedStep(turn))
        return next(iter(turn.__await__()))

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        self._is_scheduled = False
        until = self.clock.monotonic() + _SERVE_SECONDS
        try:
            while self._waiting and self.clock.monotonic() < until:
                until -= self._waiting.popleft().take_turn()
        finally:
            if self._waiting:
                self._schedule()


class _SuspendedStep:
    """A handler that let others go first, as with `asyncio.sleep(0)`."""

    __slots__ = ("_turn",)

    def __init__(self, turn: asyncio.Future[None]) -> None:
        self._turn = turn

    def take_turn(self) -> float:
        if self._turn.done():
            return 0.0
        self._turn.set_result(None)
        # The step runs later, and its time is unknown.
        return BUDGET_SECONDS
