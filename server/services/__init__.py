"""Services: what the product does, in terms of the core and the ports."""

from server.services.publisher import Publisher
from server.services.publishing import PublishingConfig, PublishingService
from server.services.submissions import Submissions
from server.services.subscribing import SubscribingService

__all__ = [
    "Publisher",
    "PublishingConfig",
    "PublishingService",
    "Submissions",
    "SubscribingService",
]
