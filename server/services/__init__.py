"""Services: what the product does, in terms of the core and the ports."""

from server.services.market.client_publishing import Submissions
from server.services.market.feed_publisher import Feeding
from server.services.market.publisher import Publisher
from server.services.market.publishing import PublishingConfig, PublishingService
from server.services.market.subscribing import SubscribingService
from server.services.market.topic_subscriptions import OpenTopics, SubscribingConfig
from server.services.node_subscriptions import Following, FollowingConfig
from server.services.sessions.messages import Talking
from server.services.sessions.notifications import Notifications
from server.services.sessions.service import SessionsConfig, SessionsService
from server.services.state_transfer import Moving
from server.services.statistics import Statistics

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
