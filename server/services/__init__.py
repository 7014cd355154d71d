"""Services: what the product does, in terms of the core and the ports."""

from server.services.following import Following
from server.services.publisher import Publisher
from server.services.publishing import PublishingConfig, PublishingService
from server.services.submissions import Submissions
from server.services.subscribing import SubscribingConfig, SubscribingService

__all__ = [
    "Following",
    "Publisher",
    "PublishingConfig",
    "PublishingService",
    "Submissions",
    "SubscribingConfig",
    "SubscribingService",
]
