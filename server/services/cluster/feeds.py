"""Marks the topics of feeds on all nodes, when a feed changes its state or its node has died."""

import logging
from collections.abc import Callable, Collection, Sequence
from itertools import islice

from server.ports import Clock, FeedWatch, NodeFeeds
from server.services.cluster.cluster import ClusterQueries
from server.services.cluster.questions import MarkFeed
from server.services.market.feed_supervisor import FeedEvent, FeedSupervisor
from server.tasks import TaskOwner

logger = logging.getLogger(__name__)

# In one message; the nodes notice the silence of further ones by their timeouts.
_MAX_CHANNELS = 10_000
# Between two announcements of what this node's feeds publish to, which grows at first.
_ANNOUNCE_SECONDS = 1.0


class FeedAnnouncer:
    """Sends the newest state of each feed, one after the other."""

    def __init__(self, node: str, cluster: ClusterQueries, tasks: TaskOwner) -> None:
        self._node = node
        self._cluster = cluster
        self._tasks = tasks
        # The states to send; a newer one of a feed replaces one that has not been sent.
        self._pending: dict[tuple[str, str], MarkFeed] = {}
        self._is_sending = False

    def announce(self, event: FeedEvent, channels: Collection[str]) -> None:
        """Send the new state of a feed with these channels."""
        named = None if event.is_live else list(islice(channels, _MAX_CHANNELS))
        self._send(MarkFeed(self._node, event.feed, named))

    def mark_dead(self, node: str, feed: str, channels: Sequence[str]) -> None:
        """Mark these channels of a dead node's feed stale."""
        self._send(MarkFeed(node, feed, list(channels)))

    def _send(self, question: MarkFeed) -> None:
        self._pending[question.node, question.feed] = question
        if not self._is_sending:
            self._is_sending = True
            self._tasks.start(self._send_all(), "floorcast-feed-state")

    async def _send_all(self) -> None:
        try:
            while self._pending:
                question = self._pending.pop(next(iter(self._pending)))
                marked = await self._cluster.mark_feed(question)
                if marked.incomplete:
                    logger.info(
                        "nodes do not know the state of a feed",
                        extra={"feed": question.feed, "nodes": ",".join(marked.incomplete)},
                    )
        finally:
            self._is_sending = False


class FeedWatcher:
    """Announces the channels of this node's live feeds, and marks those of a node that died.

    `on_event` gets the feeds of the dead node, on the one node that finds it dead.
    """

    def __init__(
        self,
        watch: FeedWatch,
        feeds: Collection[FeedSupervisor],
        announcer: FeedAnnouncer,
        clock: Clock,
        on_event: Callable[[FeedEvent], None],
    ) -> None:
        self._watch = watch
        self._feeds = feeds
        self._announcer = announcer
        self._clock = clock
        self._on_event = on_event
        # How many channels of each live feed are announced; these only grow in number.
        self._announced: dict[str, int] = {}
        self._next_at = 0.0

    def start(self) -> None:
        """Start, before the backend's occupancy."""
        self._watch.start(self._on_dead, self._on_rejoined)

    def tick(self) -> None:
        """Announce what has changed, if the last announcement was not just now."""
        now = self._clock.monotonic()
        if now < self._next_at:
            return
        live = [(each.name, each.publisher.channels) for each in self._feeds if each.is_live]
        counts = {name: min(len(channels), _MAX_CHANNELS) for name, channels in live}
        if counts != self._announced:
            self._announced = counts
            self._next_at = now + _ANNOUNCE_SECONDS
            named = {name: list(islice(channels, _MAX_CHANNELS)) for name, channels in live}
            self._watch.announce(named)

    def _on_dead(self, dead: NodeFeeds, living: Sequence[NodeFeeds]) -> None:
        for feed, channels in dead.feeds.items():
            same = (len(each.feeds.get(feed, ())) for each in living)
            if max(same, default=0) >= _MAX_CHANNELS:
                # Another node has this feed, which may publish to more than it has announced.
                continue
            stale = dict.fromkeys(channels)
            for each in living:
                for published in each.feeds.values():
                    for channel in published:
                        stale.pop(channel, None)
            if stale:
                extra = {"node": dead.node, "feed": feed, "topics": len(stale)}
                logger.warning("feed is stale: its node has died", extra=extra)
                self._announcer.mark_dead(dead.node, feed, tuple(stale))
                reason = f"its node {dead.node} has died"
                self._on_event(FeedEvent(feed, False, len(stale), reason))

    def _on_rejoined(self) -> None:
        for each in self._feeds:
            if each.is_live:
                event = FeedEvent(each.name, True, len(each.publisher.channels))
                self._announcer.announce(event, each.publisher.channels)
                # The others have taken this node for dead.
                self._on_event(event)
