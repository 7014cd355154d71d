"""The server's public names: run it, embed it, and write feeds; needs `floorcast[server]`."""

from floorcast.extras import require_server

require_server()

from client_sdk.contract import ErrorCode, Scope
from server.access import AuthorizationRule, ConfigurationError, Principal, authorize
from server.app import SERVER, Server, create_app
from server.core.errors import (
    AccessError,
    FloorcastError,
    LimitError,
    RequestError,
)
from server.core.log.entries import Position
from server.ports import Clock, Feed, FeedOptions, Publishing
from server.settings import Settings, load_settings
from server.sockets import ApplicationGuard, Call, Proceed, Reply, Route

__all__ = [
    "SERVER",
    "AccessError",
    "ApplicationGuard",
    "AuthorizationRule",
    "Call",
    "Clock",
    "ConfigurationError",
    "ErrorCode",
    "Feed",
    "FeedOptions",
    "FloorcastError",
    "LimitError",
    "Position",
    "Principal",
    "Proceed",
    "Publishing",
    "Reply",
    "RequestError",
    "Route",
    "Scope",
    "Server",
    "Settings",
    "authorize",
    "create_app",
    "load_settings",
]
