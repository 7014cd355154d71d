"""Composes the endpoints into an aiohttp application."""

from collections.abc import Callable, Iterable

from aiohttp import web

from server.ports import Occupancy
from server.services import (
    Candles,
    ClientPublishing,
    ClusterQueries,
    Instruments,
    Notifications,
    SessionModeration,
    TokenRevocation,
    TopicReading,
)
from server.web.api.cors import add_cors
from server.web.api.description import add_description
from server.web.api.endpoints import AnyEndpoint
from server.web.api.handling import ApiHandler
from server.web.api.routes.connections import ConnectionRoutes
from server.web.api.routes.instruments import InstrumentRoutes
from server.web.api.routes.market import MarketRoutes
from server.web.api.routes.sessions import SessionRoutes
from server.web.api.routes.tokens import TokenRoutes
from server.web.api.routes.users import UserRoutes

API_PATH = "/api/v1"
# Symbols may contain slashes.
_PATTERNS = {"topic": "{topic:.+}", "symbol": "{symbol:.+}"}


def all_endpoints(
    publishing: ClientPublishing,
    reading: TopicReading,
    moderation: SessionModeration,
    notifications: Notifications,
    instruments: Instruments,
    candles: Candles,
    cluster: ClusterQueries,
    revocation: TokenRevocation,
    occupancy: Occupancy,
) -> tuple[AnyEndpoint, ...]:
    """Every call of the API."""
    return (
        *MarketRoutes(publishing, reading, cluster).endpoints(),
        *InstrumentRoutes(instruments, candles).endpoints(),
        *SessionRoutes(moderation).endpoints(),
        *UserRoutes(cluster, notifications, occupancy).endpoints(),
        *ConnectionRoutes(cluster).endpoints(),
        *TokenRoutes(revocation).endpoints(),
    )


def add_api(
    app: web.Application,
    handler: ApiHandler,
    endpoints: Iterable[AnyEndpoint],
    *,
    allows_origin: Callable[[web.Request], bool],
) -> None:
    """Serve the endpoints under `/api/v1` of the application.

    `allows_origin` says whether the page that sent a request may call the API.
    """
    api = web.Application(middlewares=[handler.middleware])
    add_cors(api, allows_origin)
    endpoints = tuple(endpoints)
    add_description(api, endpoints)
    for each in endpoints:
        path = each.path
        for name in each.path_fields:
            path = path.replace(f"{{{name}}}", _PATTERNS.get(name, f"{{{name}}}"))
        api.router.add_route(each.method, path, handler.serve(each))
        if each.method == "GET":
            api.router.add_route("HEAD", path, handler.serve(each))
    app.add_subapp(API_PATH, api)
