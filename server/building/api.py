"""Builds the HTTP API, and what the nodes tell each other for it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from client_sdk import __version__
from server.access import AuthorizationRule
from server.building.clients import Clients
from server.building.delivery import Delivery
from server.building.services import Market, Sessions
from server.configs import api_config
from server.ports import Backend, Clock
from server.services import (
    ClusterQueries,
    FeedSupervisor,
    NodeAnswers,
    SessionModeration,
    Statistics,
    TokenRevocation,
    TopicReading,
)
from server.settings import Settings
from server.web.api import ApiHandler, RequestLimits, all_endpoints
from server.web.api.endpoints import AnyEndpoint


@dataclass(frozen=True, slots=True)
class Api:
    """The endpoints, what runs them, and the answers to other nodes."""

    handler: ApiHandler
    limits: RequestLimits
    endpoints: tuple[AnyEndpoint, ...]
    node_answers: NodeAnswers


def build_api(
    settings: Settings,
    clock: Clock,
    backend: Backend,
    delivery: Delivery,
    clients: Clients,
    market: Market,
    sessions: Sessions,
    statistics: Statistics,
    rule: AuthorizationRule | None,
    is_ready: Callable[[], bool],
    feeds: Collection[FeedSupervisor],
) -> Api:
    """The HTTP API of this node."""
    rates = settings.limits
    cluster = ClusterQueries(backend.cluster)
    limits = RequestLimits(
        clock,
        per_second=rates.requests_per_second,
        per_second_per_ip=rates.requests_per_second_per_ip,
    )
    handler = ApiHandler(
        api_config(settings),
        clients.context.verifier,
        limits,
        clients.context.counters,
        clock,
    )
    endpoints = all_endpoints(
        market.client_publishing,
        TopicReading(market.topics, backend.broker, rule),
        SessionModeration(
            sessions.service, sessions.messages, backend.presence, backend.broker, rule
        ),
        sessions.notifications,
        market.instruments,
        market.candles,
        cluster,
        TokenRevocation(
            backend.kept,
            clients.revocations,
            clients.registry,
            delivery.hub,
            cluster,
            backend.occupancy,
            clock,
            keep_seconds=settings.auth.revocation_seconds,
        ),
        backend.occupancy,
    )
    node_answers = NodeAnswers(
        backend.cluster.node,
        __version__,
        clients.registry,
        market.subscriptions,
        market.demand,
        sessions.service.memberships,
        delivery.hub,
        delivery.freshness,
        clients.context.event_limits,
        statistics,
        clock,
        is_ready,
        feeds,
    )
    return Api(handler, limits, endpoints, node_answers)
