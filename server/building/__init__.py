"""Builds the parts of a server from its settings."""

from server.building.api import build_api
from server.building.backends import build_backend
from server.building.clients import build_clients
from server.building.delivery import build_delivery
from server.building.hooks import build_hooks
from server.building.namespaces import build_application_namespaces, build_namespaces, build_sockets
from server.building.reporting import build_lifecycle, build_statistics
from server.building.services import (
    build_feeds,
    build_market,
    build_recovery,
    build_sessions,
)

__all__ = [
    "build_api",
    "build_application_namespaces",
    "build_backend",
    "build_clients",
    "build_delivery",
    "build_feeds",
    "build_hooks",
    "build_lifecycle",
    "build_market",
    "build_namespaces",
    "build_recovery",
    "build_sessions",
    "build_sockets",
    "build_statistics",
]
