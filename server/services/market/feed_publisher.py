"""What a feed publishes through: it need not wait, and others still get their turn."""

import asyncio
from collections.abc import Mapping

from server.core.log.entries import Position
from server.services.market.publishing import PublishingService

# A publish inside one process never waits, so a feed that only publishes would hold the loop.
MESSAGES_PER_TURN = 64


class FeedPublisher:
    """Fills the `Publishing` port for one feed."""

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
        """Publish one message, and let the loop turn now and then."""
        self._published += 1
        if self._published % MESSAGES_PER_TURN == 0:
            await asyncio.sleep(0)
        return await self._publishing.publish(topic, data, kind=kind, user=user, org=org)
