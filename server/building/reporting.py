"""Builds the parts that report: statistics, and the application's handlers."""

from server.building.clients import Clients
from server.building.delivery import Delivery
from server.building.services import Market, Sessions
from server.core.counters import Counters
from server.embedding import Handlers, Lifecycle
from server.ports import Backend
from server.services import Statistics
from server.tasks import TaskOwner


def build_lifecycle(counters: Counters, tasks: TaskOwner, handlers: Handlers) -> Lifecycle:
    """The calls of the application's handlers."""
    return Lifecycle(handlers, counters, tasks)


def build_statistics(
    counters: Counters,
    backend: Backend,
    delivery: Delivery,
    clients: Clients,
    market: Market,
    sessions: Sessions,
) -> Statistics:
    """The figures of all parts."""
    return Statistics(
        clients.registry,
        counters,
        delivery.hub,
        market.publishing,
        backend.presence,
        sessions.service,
        sessions.messages,
        sessions.notifications,
        backend.shared_limits,
    )
