"""What a node has of the places of one address or user, and what it asks for."""

import asyncio
from collections.abc import Callable

from server.core.errors import LimitError
from server.core.limits.keys import ConnectionLimit, connect_rate_exceeded


class AcquireRequest:
    """One connection that wants a place; None is the answer that it has one."""

    __slots__ = ("is_attempt_counted", "is_granted", "outcome")

    def __init__(self) -> None:
        self.outcome: asyncio.Future[LimitError | None] = asyncio.get_running_loop().create_future()
        # Whether Redis has counted the attempt.
        self.is_attempt_counted = False
        # Whether it is one of those that this node has.
        self.is_granted = False


class SharedCounter:
    """One question at a time is on its way, and whoever comes meanwhile is in the next one.

    So what is said is never overtaken, and may be what the node has and not what has changed.
    """

    __slots__ = ("_queue", "held", "in_flight", "limit", "reported", "reported_at")

    def __init__(self, limit: ConnectionLimit, now: float) -> None:
        self.limit = limit
        self.held = 0
        # What Redis thinks that this node has; None where nobody knows.
        self.reported: int | None = 0
        self.reported_at = now
        self._queue: list[AcquireRequest] = []
        # Who is in the question that is on its way.
        self.in_flight: list[AcquireRequest] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to be remembered."""
        return self.held == self.reported == 0 and self.in_flight is None and not self._queue

    def enqueue(self, request: AcquireRequest) -> None:
        """It is in the next question."""
        self._queue.append(request)

    def next_batch(self) -> list[AcquireRequest] | None:
        """Who is in a question that is to be asked now; None where there is none."""
        if self.in_flight is not None:
            return None
        # Some have gone, or did not want to wait so long.
        asks = [each for each in self._queue if not each.outcome.done()]
        self._queue.clear()
        return asks if asks or self.reported != self.held else None

    def abandon(self) -> list[AcquireRequest]:
        """No answer is to be had: who has not got one yet."""
        asks, self.in_flight = [*(self.in_flight or ()), *self._queue], None
        self._queue.clear()
        return [each for each in asks if not each.outcome.done()]

    def grant(self, request: AcquireRequest) -> None:
        """It is one of ours."""
        if self.limit.connections:
            self.held += 1
        request.is_granted = True
        request.outcome.set_result(None)

    def release(self) -> None:
        """One of ours has gone."""
        if self.limit.connections:
            self.held -= 1

    def apply_reply(
        self,
        reported: int,
        granted: int,
        within_rate: int,
        wait_ms: int,
        *,
        retry: bool,
        full_error: Callable[[], LimitError],
    ) -> None:
        """Answer who was asked for; who found no place is asked for `again` where that may help."""
        asks, self.in_flight = self.in_flight or [], None
        self.reported = reported + granted if self.limit.connections else 0
        within_rate += sum(each.is_attempt_counted for each in asks)
        for number, ask in enumerate(asks):
            if ask.is_granted:
                # It had waited for long enough, and was let in meanwhile.
                granted -= 1
            elif ask.outcome.done():
                # It has gone. What was granted is told back, for it is not what we have.
                continue
            elif granted > 0:
                granted -= 1
                self.grant(ask)
            elif number >= within_rate:
                ask.outcome.set_result(connect_rate_exceeded(wait_ms))
            elif retry:
                ask.is_attempt_counted = True
                self._queue.append(ask)
            else:
                ask.outcome.set_result(full_error())
