"""Sends queued events to the operator's webhook, in batches, until each has arrived."""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from server.core.counters import Counters
from server.core.occupancy.events import QueuedEvent
from server.hooks.endpoint import Endpoint, EndpointError
from server.ports import Clock, HookQueue
from server.tasks import TaskOwner, cancel_and_wait

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_STOP_SECONDS = 3.0
_DROP_LOG_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class SenderConfig:
    """The largest batch, and the pauses after failures."""

    batch_events: int = 100
    batch_bytes: int = 256 * 1024
    first_pause_seconds: float = 0.5
    last_pause_seconds: float = 10.0


class HookSender:
    """Sends one batch at a time, the oldest first: a batch that fails is sent again.

    Events leave the queue only once the endpoint has accepted them, so each arrives at least once.
    """

    def __init__(
        self,
        config: SenderConfig,
        queue: HookQueue,
        endpoint: Endpoint,
        clock: Clock,
        counters: Counters,
        tasks: TaskOwner,
    ) -> None:
        self._config = config
        self._queue = queue
        self._endpoint = endpoint
        self._clock = clock
        self._counters = counters
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._pause_seconds = config.first_pause_seconds
        self._failures = 0
        self._logged_drops = 0
        self._next_drop_log_at = 0.0

    async def start(self) -> None:
        """Start to send."""
        await self._endpoint.start()
        self._task = self._tasks.keep(self._run, "floorcast-hooks")

    async def stop(self) -> None:
        """Send what is queued, within a time limit, and end."""
        if self._task is None:
            return
        await cancel_and_wait(self._task)
        self._task = None
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                while await self._send_batch():
                    pass
        except (TimeoutError, EndpointError):
            logger.warning("stopped with events for the webhook", extra=self._backlog())
        await self._endpoint.stop()

    async def _run(self) -> None:
        while True:
            try:
                if not await self._send_batch():
                    await self._queue.wait(_POLL_SECONDS)
            except EndpointError as error:
                await self._pause(error)
            self._log_drops()

    async def _send_batch(self) -> bool:
        """Send the oldest events; False if there are none."""
        events = self._fit(await self._queue.take(self._config.batch_events))
        if not events:
            return False
        body = b'{"events":[%b]}' % b",".join(events)
        began = self._clock.monotonic()
        await self._endpoint.post(body)
        seconds = self._clock.monotonic() - began
        self._counters.histogram("hooks.request").observe(seconds)
        self._count("hooks.milliseconds", int(seconds * 1000))
        await self._queue.confirm(self._last_sent)
        self._count("hooks.sent", len(events))
        self._count("hooks.requests", 1)
        self._recover()
        return True

    def _fit(self, events: Sequence[QueuedEvent]) -> list[bytes]:
        """Encode as many events as one request may carry, at least one."""
        encoded: list[bytes] = []
        free_bytes = self._config.batch_bytes
        for event in events:
            text = orjson.dumps(event.body)
            free_bytes -= len(text) + 1
            if encoded and free_bytes < 0:
                break
            encoded.append(text)
            self._last_sent = event
        return encoded

    async def _pause(self, error: EndpointError) -> None:
        self._count("hooks.failed", 1)
        self._failures += 1
        if self._failures == 1:
            logger.warning("the webhook fails: %s", error, extra=self._backlog())
        pause, config = self._pause_seconds, self._config
        self._pause_seconds = min(2 * pause, config.last_pause_seconds)
        # Jitter: many servers must not call a receiver that is back at one moment.
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    def _recover(self) -> None:
        self._pause_seconds = self._config.first_pause_seconds
        if self._failures:
            logger.info("the webhook works again", extra={"failures": self._failures})
            self._failures = 0

    def _log_drops(self) -> None:
        dropped, now = self._counters.total("hooks.dropped"), self._clock.monotonic()
        if dropped > self._logged_drops and now >= self._next_drop_log_at:
            new = dropped - self._logged_drops
            logger.error("dropped events for the webhook", extra={"dropped": new})
            self._logged_drops, self._next_drop_log_at = dropped, now + _DROP_LOG_SECONDS

    def _count(self, name: str, amount: int) -> None:
        self._counters.add(name, amount)

    def _backlog(self) -> dict[str, int]:
        return {"waiting": self._queue.waiting}
