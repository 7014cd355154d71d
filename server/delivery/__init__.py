"""Delivery: from one published entry to every subscriber's link."""

from server.delivery.fanout import DeliveryConfig, Fanout
from server.delivery.freshness import Freshness, FreshnessConfig

__all__ = ["DeliveryConfig", "Fanout", "Freshness", "FreshnessConfig"]
