"""Asks a Cluster whether any node is subscribed to a channel, which a script cannot see."""

from server.brokers.redis.connection.client import CountSubscribers
from server.brokers.redis.connection.pipeline import Pipeline


class Subscribers:
    """The subscribers of channels on the other servers of a Cluster.

    A script counts those of its own server alone. A node that subscribes after the count, and
    before the channel is deleted, gets a reset.
    """

    def __init__(self, pipeline: Pipeline, *, is_cluster: bool) -> None:
        self._pipeline = pipeline
        self._is_cluster = is_cluster

    async def may_exist(self, base: bytes) -> bool:
        """Whether a script must not delete the channel; without a Cluster the script decides."""
        return self._is_cluster and await self._pipeline.run(CountSubscribers(base)) != 0
