"""Feeds: the sources of market data."""

from server.feeds.errors import FeedError
from server.feeds.numbers import decimal_text
from server.feeds.registry import open_feeds
from server.feeds.replay import ReplayFeed
from server.feeds.simulated import SimulatedFeed

__all__ = ["FeedError", "ReplayFeed", "SimulatedFeed", "decimal_text", "open_feeds"]
