"""Builds the namespaces, and the Socket.IO server of them."""

from collections.abc import Iterable
from dataclasses import replace

from server.building.clients import Clients
from server.building.delivery import Delivery
from server.building.services import Market, Sessions
from server.configs import resume_tickets, rooms_config, transport_config
from server.embedding import ApplicationNamespace, Extensions, Namespace, stay_check
from server.ports import Backend, Clock
from server.services import Recovery, RoomRecovery, Rooms
from server.settings import Settings
from server.sockets import GuardedNamespace, MarketNamespace, SessionNamespace
from server.tasks import TaskOwner
from server.transport import SocketServer, stock_namespace


def build_namespaces(
    clients: Clients, recovery: Recovery, market: Market, sessions: Sessions
) -> tuple[GuardedNamespace, ...]:
    """All namespaces that clients can connect to."""
    return (
        MarketNamespace(
            clients.context,
            recovery,
            market.subscribing,
            market.client_publishing,
            market.instruments,
            market.candles,
            market.wills,
        ),
        SessionNamespace(
            clients.context,
            recovery,
            sessions.service,
            sessions.messages,
            sessions.notifications,
        ),
    )


def build_application_namespaces(
    settings: Settings,
    clock: Clock,
    backend: Backend,
    delivery: Delivery,
    clients: Clients,
    recovery: Recovery,
    namespaces: Iterable[Namespace],
) -> tuple[GuardedNamespace, ...]:
    """The application's own namespaces, each with rooms and recovery."""
    built = []
    for namespace in namespaces:
        if not isinstance(namespace, Namespace):
            raise stock_namespace(namespace)
        rooms = Rooms(
            namespace.name,
            rooms_config(settings),
            backend.broker,
            delivery.node_subscriptions,
            delivery.hub,
            clock,
        )
        recovery.add_namespace(
            namespace.name,
            resume_tickets(settings, backend.handover.node),
            RoomRecovery(rooms, delivery.hub, stay_check(namespace)),
        )
        built.append(ApplicationNamespace(namespace, clients.context, recovery, rooms))
    return tuple(built)


def build_sockets(
    settings: Settings,
    clock: Clock,
    tasks: TaskOwner,
    clients: Clients,
    delivery: Delivery,
    namespaces: tuple[GuardedNamespace, ...],
    extensions: Extensions,
) -> SocketServer:
    """The Socket.IO server of these namespaces."""
    return SocketServer(
        namespaces,
        config=replace(transport_config(settings), keep_headers=extensions.read_headers),
        admission=clients.admission,
        offsets=delivery.offsets,
        refusals=clients.context.refusals,
        clock=clock,
        tasks=tasks,
    )
