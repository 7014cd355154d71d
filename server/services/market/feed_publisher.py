"""Publishes for a feed, and yields to the event loop regularly."""

import asyncio
from collections.abc import Mapping

from server.core.log.entries import Position
from server.services.market.publishing import PublishingService

# The memory broker never suspends: without a yield, a busy feed would block the event loop.
MESSAGES_PER_TURN = 64


class FeedPublisher:
    """Implements the `Publishing` port for one feed."""

    def __init__(self, publishing: PublishingService) -> None:
        self._publishing = publishing
        self._published = 0

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
    ) -> Position:
        """Publish one message; raises what `PublishingService.publish` raises."""
        self._published += 1
        if self._published % MESSAGES_PER_TURN == 0:
            await asyncio.sleep(0)
        return await self._publishing.publish(topic, data, kind=kind, user=user, org=org)
