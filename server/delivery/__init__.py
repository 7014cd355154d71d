"""Delivery of published entries to the connections of this node."""

from server.delivery.freshness import Freshness, FreshnessConfig
from server.delivery.hub import DeliveryConfig, Hub

__all__ = ["DeliveryConfig", "Freshness", "FreshnessConfig", "Hub"]
