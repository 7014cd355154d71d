"""Feeds: where market data comes from."""

from server.feeds.simulated import SimulatedFeed

__all__ = ["SimulatedFeed"]
