"""The server's public names: run it, embed it, and write feeds; needs `floorcast[server]`."""

from floorcast.extras import require_server

require_server()

from client_sdk.contract import ErrorCode, Request, Scope
from server.access import (
    AuthorizationRule,
    AuthRequest,
    ConfigurationError,
    Principal,
    authorize,
)
from server.app import SERVER, create_app
from server.brokers import BrokerError
from server.core.errors import (
    AccessError,
    FloorcastError,
    LimitError,
    RequestError,
)
from server.core.log.entries import Position
from server.embedding import (
    Authenticate,
    ClientEvent,
    ExpiredNotice,
    Handlers,
    MemberEvent,
    Namespace,
    OccupiedSession,
    OccupiedTopic,
    UserEvent,
    on,
)
from server.feeds import decimal_text
from server.hosting import admin_app, host
from server.ports import (
    Answers,
    ApplicationBackend,
    BackendOptions,
    Broker,
    Clock,
    Cluster,
    Feed,
    FeedOptions,
    Handover,
    HookQueue,
    KeptValues,
    NoticeStore,
    Occupancy,
    PresenceManager,
    Publishing,
    SharedLimits,
)
from server.server import Server
from server.services import FeedEvent
from server.settings import Settings, load_settings
from server.sockets import ApplicationGuard, Call, JoinedClient, Proceed, Reply, Route

__all__ = [
    "SERVER",
    "AccessError",
    "Answers",
    "ApplicationBackend",
    "ApplicationGuard",
    "AuthRequest",
    "Authenticate",
    "AuthorizationRule",
    "BackendOptions",
    "Broker",
    "BrokerError",
    "Call",
    "ClientEvent",
    "Clock",
    "Cluster",
    "ConfigurationError",
    "ErrorCode",
    "ExpiredNotice",
    "Feed",
    "FeedEvent",
    "FeedOptions",
    "FloorcastError",
    "Handlers",
    "Handover",
    "HookQueue",
    "JoinedClient",
    "KeptValues",
    "LimitError",
    "MemberEvent",
    "Namespace",
    "NoticeStore",
    "Occupancy",
    "OccupiedSession",
    "OccupiedTopic",
    "Position",
    "PresenceManager",
    "Principal",
    "Proceed",
    "Publishing",
    "Reply",
    "Request",
    "RequestError",
    "Route",
    "Scope",
    "Server",
    "Settings",
    "SharedLimits",
    "UserEvent",
    "admin_app",
    "authorize",
    "create_app",
    "decimal_text",
    "host",
    "load_settings",
    "on",
]
