"""Delivery of published entries to the connections of this node."""

from server.delivery.context import DeliveryConfig
from server.delivery.hub import Hub
from server.delivery.recovery import ExportedClient, ExportedSubscription

__all__ = ["DeliveryConfig", "ExportedClient", "ExportedSubscription", "Hub"]
