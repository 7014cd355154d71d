"""Use cases of the server: market, sessions and recovery, built on the core and the ports."""

from server.services.cluster.cluster import ClusterQueries
from server.services.cluster.demand import ClusterDemand
from server.services.cluster.feeds import FeedAnnouncer, FeedWatcher
from server.services.cluster.node import NodeAnswers
from server.services.cluster.questions import (
    DisconnectConnection,
    DisconnectUser,
    FindConnections,
    FindTopics,
)
from server.services.cluster.records import ConnectionInfo, NodeInfo, TopicInfo
from server.services.market.canary import Canary, CanaryConfig
from server.services.market.candle_keeper import CandleKeeper
from server.services.market.candle_store import CandleStore
from server.services.market.candles import Candles
from server.services.market.client_publishing import ClientPublishing
from server.services.market.demand import Demand, LocalDemand
from server.services.market.feed_publisher import FeedPublisher
from server.services.market.feed_supervisor import FeedEvent, FeedState, FeedSupervisor
from server.services.market.freshness import Freshness, FreshnessConfig
from server.services.market.instruments import Instruments
from server.services.market.patterns import Patterns
from server.services.market.publisher import Publisher
from server.services.market.publishing import PublishingConfig, PublishingService
from server.services.market.recovery import MarketRecovery
from server.services.market.series_loader import SeriesLoader
from server.services.market.subscribing import SubscribingService
from server.services.market.subscribing_config import SubscribingConfig
from server.services.market.topic_reading import TopicReading
from server.services.market.topic_shares import TopicSharesConfig
from server.services.market.topic_subscriptions import TopicSubscriptions
from server.services.market.wills import WillService
from server.services.node_subscriptions import NodeSubscriptions
from server.services.occupancy import HookEvents, LocalOccupancy, SessionUses, TopicUses
from server.services.recovery import RecoverableState, Recovery, ResumingClient
from server.services.revoking import TokenRevocation
from server.services.rooms.recovery import RoomRecovery
from server.services.rooms.rooms import Rooms, RoomsConfig
from server.services.sessions.messages import SessionMessages
from server.services.sessions.moderation import SessionModeration
from server.services.sessions.notice_ids import NoticeIds
from server.services.sessions.notifications import Notifications, PendingNotices
from server.services.sessions.recovery import SessionRecovery
from server.services.sessions.service import SessionsConfig, SessionsService
from server.services.statistics import Statistics, memory_bytes
from server.services.webhook_rule import webhook_rule

__all__ = [
    "Canary",
    "CanaryConfig",
    "CandleKeeper",
    "CandleStore",
    "Candles",
    "ClientPublishing",
    "ClusterDemand",
    "ClusterQueries",
    "ConnectionInfo",
    "Demand",
    "DisconnectConnection",
    "DisconnectUser",
    "FeedAnnouncer",
    "FeedEvent",
    "FeedPublisher",
    "FeedState",
    "FeedSupervisor",
    "FeedWatcher",
    "FindConnections",
    "FindTopics",
    "Freshness",
    "FreshnessConfig",
    "HookEvents",
    "Instruments",
    "LocalDemand",
    "LocalOccupancy",
    "MarketRecovery",
    "NodeAnswers",
    "NodeInfo",
    "NodeSubscriptions",
    "NoticeIds",
    "Notifications",
    "Patterns",
    "PendingNotices",
    "Publisher",
    "PublishingConfig",
    "PublishingService",
    "RecoverableState",
    "Recovery",
    "ResumingClient",
    "RoomRecovery",
    "Rooms",
    "RoomsConfig",
    "SeriesLoader",
    "SessionMessages",
    "SessionModeration",
    "SessionRecovery",
    "SessionUses",
    "SessionsConfig",
    "SessionsService",
    "Statistics",
    "SubscribingConfig",
    "SubscribingService",
    "TokenRevocation",
    "TopicInfo",
    "TopicReading",
    "TopicSharesConfig",
    "TopicSubscriptions",
    "TopicUses",
    "WillService",
    "memory_bytes",
    "webhook_rule",
]
