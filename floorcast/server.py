"""The server's public names: run it, embed it, and write feeds; needs `floorcast[server]`."""

from floorcast.extras import require_server

require_server()

from client_sdk.contract import ErrorCode, Scope
from server.access import ConfigurationError, Principal
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

__all__ = [
    "SERVER",
    "AccessError",
    "Clock",
    "ConfigurationError",
    "ErrorCode",
    "Feed",
    "FeedOptions",
    "FloorcastError",
    "LimitError",
    "Position",
    "Principal",
    "Publishing",
    "RequestError",
    "Scope",
    "Server",
    "Settings",
    "create_app",
    "load_settings",
]
