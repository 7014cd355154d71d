"""The server's public names: run it, embed it, and write feeds; needs `floorcast[server]`."""

from floorcast.extras import require_server

require_server()

from client_sdk.contract import ErrorCode, Request, Scope
from server.access import AuthorizationRule, ConfigurationError, Principal, authorize
from server.app import SERVER, Server, create_app
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
    Handlers,
    MemberEvent,
    Namespace,
    UserEvent,
    on,
)
from server.hosting import host
from server.ports import Clock, Feed, FeedOptions, Publishing
from server.settings import Settings, load_settings
from server.sockets import ApplicationGuard, Call, JoinedClient, Proceed, Reply, Route

__all__ = [
    "SERVER",
    "AccessError",
    "ApplicationGuard",
    "Authenticate",
    "AuthorizationRule",
    "Call",
    "ClientEvent",
    "Clock",
    "ConfigurationError",
    "ErrorCode",
    "Feed",
    "FeedOptions",
    "FloorcastError",
    "Handlers",
    "JoinedClient",
    "LimitError",
    "MemberEvent",
    "Namespace",
    "Position",
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
    "UserEvent",
    "authorize",
    "create_app",
    "host",
    "load_settings",
    "on",
]
