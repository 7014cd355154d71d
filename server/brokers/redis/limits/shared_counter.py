"""Counts one address's or user's connections on this node and batches requests for more."""

import asyncio
from collections.abc import Callable

from server.core.errors import LimitError
from server.core.limits.keys import ConnectionLimit, connect_rate_exceeded


class AcquireRequest:
    """A request for one connection; its outcome is None, or the error that refuses it."""

    __slots__ = ("is_attempt_counted", "is_granted", "outcome")

    def __init__(self) -> None:
        self.outcome: asyncio.Future[LimitError | None] = asyncio.get_running_loop().create_future()
        # Whether Redis already counted the attempt.
        self.is_attempt_counted = False
        # Whether it is in `held`, even if the reply is still pending.
        self.is_granted = False


class SharedCounter:
    """Keeps one batch in flight; later requests wait for the next one.

    So reports are never reordered, and can carry the absolute count instead of a change.
    """

    __slots__ = ("_queue", "held", "in_flight", "limit", "reported", "reported_at")

    def __init__(self, limit: ConnectionLimit, now: float) -> None:
        self.limit = limit
        self.held = 0
        # This node's count according to Redis; None if unknown.
        self.reported: int | None = 0
        self.reported_at = now
        self._queue: list[AcquireRequest] = []
        self.in_flight: list[AcquireRequest] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the counter holds nothing and can be dropped."""
        return self.held == self.reported == 0 and self.in_flight is None and not self._queue

    def enqueue(self, request: AcquireRequest) -> None:
        """Add a request to the next batch."""
        self._queue.append(request)

    def next_batch(self) -> list[AcquireRequest] | None:
        """The requests to send, empty to report only the count; None if there is nothing to do."""
        if self.in_flight is not None:
            return None
        # Skip requests that were cancelled or granted locally.
        batch = [each for each in self._queue if not each.outcome.done()]
        self._queue.clear()
        return batch if batch or self.reported != self.held else None

    def abandon(self) -> list[AcquireRequest]:
        """Give up the batch in flight and the queue; returns the unanswered requests."""
        batch, self.in_flight = [*(self.in_flight or ()), *self._queue], None
        self._queue.clear()
        return [each for each in batch if not each.outcome.done()]

    def grant(self, request: AcquireRequest) -> None:
        """Grant a request."""
        if self.limit.connections:
            self.held += 1
        request.is_granted = True
        request.outcome.set_result(None)

    def release(self) -> None:
        """Release one connection."""
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
        """Resolve the batch in flight; with `retry`, requests over the limit are queued again."""
        batch, self.in_flight = self.in_flight or [], None
        self.reported = reported + granted if self.limit.connections else 0
        within_rate += sum(each.is_attempt_counted for each in batch)
        for number, request in enumerate(batch):
            if request.is_granted:
                # Granted locally meanwhile, after its timeout.
                granted -= 1
            elif request.outcome.done():
                # Cancelled: the next report returns the grant, as `held` does not contain it.
                continue
            elif granted > 0:
                granted -= 1
                self.grant(request)
            elif number >= within_rate:
                request.outcome.set_result(connect_rate_exceeded(wait_ms))
            elif retry:
                request.is_attempt_counted = True
                self._queue.append(request)
            else:
                request.outcome.set_result(full_error())
