"""Marks the topics of this node's feeds on the other nodes, when a feed changes its state."""

import logging
from collections.abc import Collection
from itertools import islice

from server.services.cluster.cluster import ClusterQueries
from server.services.cluster.questions import MarkFeed
from server.services.market.feed_supervisor import FeedEvent
from server.tasks import TaskOwner

logger = logging.getLogger(__name__)

# In one message; the nodes notice the silence of further ones by their timeouts.
_MAX_CHANNELS = 10_000


class FeedAnnouncer:
    """Sends the newest state of each feed, one after the other."""

    def __init__(self, node: str, cluster: ClusterQueries, tasks: TaskOwner) -> None:
        self._node = node
        self._cluster = cluster
        self._tasks = tasks
        # The states to send; a newer one of a feed replaces one that has not been sent.
        self._pending: dict[str, MarkFeed] = {}
        self._is_sending = False

    def announce(self, event: FeedEvent, channels: Collection[str]) -> None:
        """Send the new state of a feed with these channels."""
        named = None if event.is_live else list(islice(channels, _MAX_CHANNELS))
        self._pending[event.feed] = MarkFeed(self._node, event.feed, named)
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
