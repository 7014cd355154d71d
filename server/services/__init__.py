"""Services: what the product does, in terms of the core and the ports."""

from server.services.feeding import Feeding
from server.services.following import Following, FollowingConfig
from server.services.moving import Moving
from server.services.notifications import Notifications
from server.services.publisher import Publisher
from server.services.publishing import PublishingConfig, PublishingService
from server.services.sessions import SessionsConfig, SessionsService
from server.services.statistics import Statistics
from server.services.submissions import Submissions
from server.services.subscribing import SubscribingService
from server.services.talking import Talking
from server.services.topics import OpenTopics, SubscribingConfig

__all__ = [
    "Feeding",
    "Following",
    "FollowingConfig",
    "Moving",
    "Notifications",
    "OpenTopics",
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
