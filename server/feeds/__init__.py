"""Feeds: the sources of market data."""

from server.feeds.errors import FeedError
from server.feeds.registry import open_feed
from server.feeds.replay import ReplayFeed
from server.feeds.simulated import SimulatedFeed

__all__ = ["FeedError", "ReplayFeed", "SimulatedFeed", "open_feed"]
