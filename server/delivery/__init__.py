"""Delivery: from one published entry to every subscriber's link."""

from server.delivery.freshness import Freshness, FreshnessConfig
from server.delivery.hub import DeliveryConfig, Hub

__all__ = ["DeliveryConfig", "Freshness", "FreshnessConfig", "Hub"]
