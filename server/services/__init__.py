"""Services: what the product does, in terms of the core and the ports."""

from server.services.feeding import Feeding
from server.services.following import Following, FollowingConfig
from server.services.notifications import Notifications
from server.services.publisher import Publisher
from server.services.publishing import PublishingConfig, PublishingService
from server.services.sessions import SessionsConfig, SessionsService
from server.services.statistics import Statistics
from server.services.submissions import Submissions
from server.services.subscribing import SubscribingConfig, SubscribingService
from server.services.talking import Talking

__all__ = [
    "Feeding",
    "Following",
    "FollowingConfig",
    "Notifications",
    "Publisher",
    "PublishingConfig",
    "PublishingService",
    "SessionsConfig",
    "SessionsService",
    "Statistics",
    "Submissions",
    "SubscribingConfig",
    "SubscribingService",
    "Talking",
]
