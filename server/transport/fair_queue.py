"""Shares the event loop's time: connections that took more than their budget wait for a turn."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from server.ports import Clock
from server.tasks import TaskOwner

# The time that all waiting connections together get between two polls of the network.
_SERVE_SECONDS = 0.004
# Once packets took so long in a turn of the loop, what can wait is left to the next one.
_TURN_SECONDS = 0.004
# How long a step takes that is not known before. A step that finds the turn full waits again.
_STEP_SECONDS = 0.0005


class Waiter(Protocol):
    """Something that waits in the queue."""

    def take_turn(self) -> float:
        """Do a little work, and `add` itself again for more; must not raise.

        Returns the seconds that the work will take after this call.
        """


class FairQueue:
    """Serves the waiting connections in rounds, for some milliseconds in each turn of the loop.

    Those within their budget wait here only with a large packet, or with a further step of a long
    one, in a turn that is full already. So what they do is delayed by a few milliseconds at most,
    however many others ask for more.
    """

    def __init__(
        self, clock: Clock, tasks: TaskOwner, cpu_seconds: Callable[[], float] = time.thread_time
    ) -> None:
        self.clock = clock
        # Here, and not in each connection: they start the tasks of packets that wait.
        self.tasks = tasks
        self.cpu_seconds = cpu_seconds
        self._waiting: deque[Waiter] = deque()
        # Served before the others.
        self._first: deque[Waiter] = deque()
        self._is_scheduled = False
        # Whether the last turn was left to those who are served first.
        self._owes_a_turn = False
        self._turn_seconds = 0.0
        # Whether the packets of this turn of the loop took their time.
        self.is_full = False

    def __len__(self) -> int:
        return len(self._first) + len(self._waiting)

    def add(self, waiter: Waiter, *, first: bool = False) -> None:
        """Give a turn to this waiter, after those who wait already.

        `first`: before those over their budget, for one within it, or whose turn came but was full.
        """
        (self._first if first else self._waiting).append(waiter)
        self._schedule()

    def turn(self, *, first: bool) -> Any:
        """What a coroutine has to yield to its task in order to wait for a turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(_SuspendedStep(turn), first=first)
        return next(iter(turn.__await__()))

    def count(self, seconds: float) -> None:
        """Count the time of a packet, or of a step, in this turn of the loop.

        Turns that took little are counted as one: a callback in each would cost more.
        """
        self._turn_seconds += seconds
        if self._turn_seconds > _TURN_SECONDS and not self.is_full:
            self.is_full = True
            asyncio.get_running_loop().call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._turn_seconds = 0.0
        self.is_full = False

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        self._is_scheduled = False
        try:
            if self._owes_a_turn and self._waiting:
                self._owes_a_turn = False
                self._waiting.popleft().take_turn()
            else:
                self._owes_a_turn = self._serve_some()
        finally:
            if self._first or self._waiting:
                self._schedule()

    def _serve_some(self) -> bool:
        """Serve the waiting ones for some milliseconds; returns if steps will run after this."""
        until = self.clock.monotonic() + _SERVE_SECONDS
        steps_are_due = False
        while (waiting := self._first or self._waiting) and self.clock.monotonic() < until:
            if isinstance(waiting[0], _SuspendedStep):
                steps_are_due = True
            elif steps_are_due:
                # A packet would take the turn of these steps.
                break
            until -= waiting.popleft().take_turn()
        return steps_are_due


class _SuspendedStep:
    """A handler that let others go first, as with `asyncio.sleep(0)`."""

    __slots__ = ("_turn",)

    def __init__(self, turn: asyncio.Future[None]) -> None:
        self._turn = turn

    def take_turn(self) -> float:
        if self._turn.done():
            return 0.0
        self._turn.set_result(None)
        return _STEP_SECONDS
