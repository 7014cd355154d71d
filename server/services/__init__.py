"""Services: what the product does, in terms of the core and the ports."""

from server.services.publishing import PublishingService
from server.services.subscribing import SubscribingService

__all__ = ["PublishingService", "SubscribingService"]
