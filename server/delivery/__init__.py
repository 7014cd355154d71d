"""Delivery of published entries to the connections of this node."""

from server.delivery.catch_up import ExportedClient, ExportedSubscription
from server.delivery.hub import DeliveryConfig, Hub

__all__ = [
    "DeliveryConfig",
    "ExportedClient",
    "ExportedSubscription",
    "Hub",
]
