"""Supervises one feed: restarts it if it fails, and marks its topics stale meanwhile."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from server.ports import Clock, Feed, ignore
from server.services.market.demand import Demand
from server.services.market.feed_publisher import FeedPublisher
from server.services.market.freshness import Freshness
from server.services.market.instruments import Instruments
from server.services.market.publishing import PublishingService
from server.tasks import TaskOwner, cancel_and_wait

logger = logging.getLogger(__name__)


class FeedState(StrEnum):
    """What a feed does."""

    IDLE = "idle"
    """It does not run in this process."""
    STARTING = "starting"
    """It runs and has published nothing yet."""
    LIVE = "live"
    """It publishes, or would if anybody listened."""
    STALE = "stale"
    """It has failed, or was silent for too long, and is being restarted."""
    ENDED = "ended"
    """It has returned, and is not run again."""


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """A feed publishes again, or no longer; `reason` says why not."""

    feed: str
    is_live: bool
    topic_count: int
    reason: str = ""

    @property
    def type(self) -> str:
        """The type of the lifecycle event."""
        return "feed.live" if self.is_live else "feed.stale"


class FeedSilent(Exception):
    """A feed has published nothing for too long."""


class FeedSupervisor:
    """Runs one feed, and knows whether it is live.

    A feed that fails is restarted by `TaskOwner`, with growing pauses. Once it has failed or ended,
    its topics turn STALE at once; each is LIVE again with its next message. With `silent_seconds`,
    a feed that publishes nothing for so long fails, unless it follows `demand` and nobody listens.
    `on_event` gets each change, `announce` also the channels, for other nodes.
    """

    def __init__(
        self,
        name: str,
        feed: Feed,
        publishing: PublishingService,
        instruments: Instruments,
        freshness: Freshness,
        clock: Clock,
        tasks: TaskOwner,
        *,
        demand: Demand | None = None,
        silent_seconds: float = 0.0,
        on_event: Callable[[FeedEvent], None] = ignore,
        announce: Callable[[FeedEvent, Collection[str]], None] | None = None,
        task_name: str = "floorcast-feed",
    ) -> None:
        self.name = name
        self.task_name = task_name
        self.state = FeedState.IDLE
        # How often it has failed.
        self.failures = 0
        self.publisher = FeedPublisher(
            publishing, name, instruments, demand, self._set_topics_stale
        )
        self._feed = feed
        self._freshness = freshness
        self._clock = clock
        self._tasks = tasks
        self._silent_seconds = silent_seconds
        self._on_event = on_event
        self._announce = announce
        self._task: asyncio.Task[None] | None = None
        self._time_limit: asyncio.Timeout | None = None
        # The messages counted at the last tick that saw a new one, and the time of that tick.
        self._published = 0
        self._published_at = 0.0

    @property
    def is_live(self) -> bool:
        """Whether it publishes."""
        return self.state is FeedState.LIVE

    @property
    def silent_seconds(self) -> float:
        """How long ago it published or was started, to the accuracy of `tick`."""
        if self.state is FeedState.IDLE:
            return 0.0
        return self._clock.monotonic() - self._published_at

    def start(self) -> None:
        """Start the feed; a no-op if it was started before."""
        if self._task is None:
            self._task = self._tasks.keep(self._run, self.task_name, may_end=True)

    async def stop(self) -> None:
        """Stop the feed; it publishes nothing after this returns, and its topics are not stale."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self.state = FeedState.IDLE

    def tick(self) -> None:
        """Find out whether the feed publishes, and make a silent one fail."""
        if self._time_limit is None:
            return
        if self.publisher.published != self._published or self.publisher.is_unwanted:
            self._published = self.publisher.published
            self._published_at = self._clock.monotonic()
            if self.state is not FeedState.LIVE:
                self._go_live()
        elif 0 < self._silent_seconds <= self.silent_seconds and not self._time_limit.expired():
            self._time_limit.reschedule(asyncio.get_running_loop().time())

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.state is FeedState.IDLE:
            self.state = FeedState.STARTING
        self._published_at = self._clock.monotonic()
        try:
            await self._run_feed()
        except BaseException as failure:
            if not task.cancelling():
                self.failures += 1
                self._go_stale(FeedState.STALE, str(failure) or type(failure).__name__)
            raise
        finally:
            self._time_limit = None
        logger.info("feed ended", extra={"feed": self.name})
        self._go_stale(FeedState.ENDED, "the feed has ended")

    async def _run_feed(self) -> None:
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._time_limit = limit
                await self._feed.run(self.publisher)
        except TimeoutError:
            if not limit.expired():
                raise
            raise FeedSilent(f"published nothing for {self._silent_seconds:g} s") from None

    def _go_live(self) -> None:
        self.state = FeedState.LIVE
        self._freshness.set_feed_live(self.name)
        event = FeedEvent(self.name, True, len(self.publisher.channels))
        logger.info("feed is live", extra={"feed": self.name})
        self._report(event)

    def _go_stale(self, state: FeedState, reason: str) -> None:
        was_stale, self.state = self.state is FeedState.STALE, state
        # What it published since the last tick does not make it live again.
        self._published = self.publisher.published
        channels = self.publisher.channels
        self._freshness.set_feed_stale(self.name, channels)
        if was_stale:
            return
        logger.warning(
            "feed is stale: %s", reason, extra={"feed": self.name, "topics": len(channels)}
        )
        self._report(FeedEvent(self.name, False, len(channels), reason))

    def _set_topics_stale(self, topics: Collection[str], reason: str) -> None:
        """Mark some topics stale while the feed itself goes on, as if they were another feed's."""
        part = FeedEvent(f"{self.name}/topics", False, len(topics), reason)
        self._freshness.set_feed_stale(part.feed, topics)
        if self._announce is not None:
            self._announce(part, topics)

    def _report(self, event: FeedEvent) -> None:
        self._on_event(event)
        if self._announce is not None:
            self._announce(event, self.publisher.channels)
