"""Builds the parts of a server from its settings."""

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from client_sdk.contract import MARKET_NAMESPACE, SESSION_NAMESPACE
from server.access import AuthorizationRule, ConfigurationError, build_verifier
from server.brokers import (
    BrokerError,
    FileBroker,
    FileHandover,
    FileNoticeStore,
    FilePresence,
    FileStore,
    MemoryBroker,
    MemoryHandover,
    MemoryNoticeStore,
    MemoryPresence,
    NodeSession,
    RedisBroker,
    RedisHandover,
    RedisNoticeStore,
    RedisPresence,
    RedisSharedLimits,
    is_installed,
    open_backend,
)
from server.configs import (
    NO_LIMIT,
    access_config,
    delivery_config,
    file_config,
    freshness_config,
    limit_keys,
    memory_config,
    node_subscriptions_config,
    notices,
    publishing_config,
    redis_config,
    resume_tickets,
    rooms_config,
    session_rules,
    sessions_config,
    sockets_config,
    subscribing_config,
    transport_config,
)
from server.core.connections import ConnectionManager
from server.core.counters import Counters
from server.core.limits.connections import ConnectionLimits, ConnectRate
from server.core.limits.events import EventLimits
from server.core.market.subscriptions import Subscriptions
from server.core.recovery.offsets import Offsets
from server.core.recovery.tickets import ResumeTickets
from server.delivery import Hub
from server.embedding import (
    ApplicationNamespace,
    ApplicationVerifier,
    Extensions,
    Handlers,
    Lifecycle,
    Namespace,
    stay_check,
)
from server.ports import ApplicationBackend, Backend, BackendOptions, Clock, SharedLimits
from server.services import (
    ClientPublishing,
    Freshness,
    MarketRecovery,
    NodeSubscriptions,
    Notifications,
    PublishingService,
    Recovery,
    RoomRecovery,
    Rooms,
    SessionMessages,
    SessionRecovery,
    SessionsService,
    Statistics,
    SubscribingService,
    TopicSubscriptions,
)
from server.settings import Settings
from server.sockets import (
    ClientListener,
    GuardedNamespace,
    MarketNamespace,
    NamespaceContext,
    SessionNamespace,
    Verifier,
)
from server.tasks import TaskOwner
from server.transport import MAX_REFUSED, Admission, RefusalLog, SocketServer, stock_namespace


@dataclass(frozen=True, slots=True)
class Clients:
    """Who is connected, and who may be."""

    registry: ConnectionManager
    limits: ConnectionLimits
    admission: Admission
    context: NamespaceContext


@dataclass(frozen=True, slots=True)
class Delivery:
    """The hub with what it is made of."""

    hub: Hub
    freshness: Freshness
    offsets: Offsets
    node_subscriptions: NodeSubscriptions


@dataclass(frozen=True, slots=True)
class Market:
    """The services of `/market`."""

    subscriptions: Subscriptions
    subscribing: SubscribingService
    publishing: PublishingService
    client_publishing: ClientPublishing
    tickets: ResumeTickets
    recovery: MarketRecovery


@dataclass(frozen=True, slots=True)
class Sessions:
    """The services of `/session`."""

    service: SessionsService
    messages: SessionMessages
    notifications: Notifications
    tickets: ResumeTickets
    recovery: SessionRecovery


def build_backend(
    settings: Settings,
    clock: Clock,
    counters: Counters,
    tasks: TaskOwner,
    own: ApplicationBackend | None,
) -> Backend:
    """The application's own backend, or the one that `broker.url` names.

    Raises `ConfigurationError` if an installed backend cannot be opened.
    """
    rules, pending_notices = session_rules(settings), notices(settings)
    url = settings.broker.url.get_secret_value()
    if own is None and is_installed(url):
        try:
            own = open_backend(BackendOptions(url, settings.broker.prefix, clock))
        except BrokerError as error:
            raise ConfigurationError(f"broker.url: {error}") from error
    if own is not None:
        return Backend(
            own.broker,
            own.presence or MemoryPresence(clock, rules),
            own.notices or MemoryNoticeStore(clock, pending_notices),
            own.handover or MemoryHandover(),
            own.shared_limits,
        )
    if settings.broker.url.in_memory:
        return Backend(
            MemoryBroker(clock, epoch=secrets.token_hex(4), config=memory_config(settings)),
            MemoryPresence(clock, rules),
            MemoryNoticeStore(clock, pending_notices),
            MemoryHandover(),
        )
    if settings.broker.url.folder is not None:
        return _build_file_backend(settings, settings.broker.url.folder, clock, counters, tasks)
    config = redis_config(settings)
    broker = RedisBroker(clock, counters, config, tasks)
    keep_seconds = settings.session.notice_seconds
    session = NodeSession(clock, config, tasks)
    presence = RedisPresence(clock, config, rules, broker, session)
    shared_limits = None
    if settings.limits.shared:
        shared_limits = RedisSharedLimits(
            clock, counters, limit_keys(settings), session, prefix=config.prefix
        )
    return Backend(
        broker,
        presence,
        RedisNoticeStore(clock, config, broker, pending_notices, keep_seconds=keep_seconds),
        RedisHandover(config, broker, counters, window_seconds=settings.recovery.window_seconds),
        shared_limits,
    )


def _build_file_backend(
    settings: Settings, folder: Path, clock: Clock, counters: Counters, tasks: TaskOwner
) -> Backend:
    store = FileStore(file_config(settings, folder), counters)
    keep_seconds = settings.session.notice_seconds
    return Backend(
        FileBroker(clock, store, tasks, config=memory_config(settings)),
        FilePresence(clock, session_rules(settings), store),
        FileNoticeStore(clock, store, notices(settings), keep_seconds=keep_seconds),
        FileHandover(clock, store, window_seconds=settings.recovery.window_seconds),
    )


def build_lifecycle(
    settings: Settings, clock: Clock, counters: Counters, tasks: TaskOwner, handlers: Handlers
) -> Lifecycle:
    """The calls of the application's handlers."""
    return Lifecycle(handlers, clock, counters, tasks, grace_seconds=settings.session.grace_seconds)


def build_clients(
    settings: Settings,
    clock: Clock,
    counters: Counters,
    shared_limits: SharedLimits | None,
    extensions: Extensions,
    listener: ClientListener,
) -> Clients:
    """The limits and the registry of connections, and what all namespaces share."""
    limits = settings.limits
    registry = ConnectionManager()
    connection_limits = ConnectionLimits(
        total=limits.connections,
        per_ip=limits.connections_per_ip,
        per_user=limits.connections_per_user,
        on_release=None if shared_limits is None else shared_limits.release,
    )
    admission = Admission(
        connection_limits,
        ConnectRate(
            per_second=limits.connects_per_second,
            per_second_per_ip=limits.connects_per_second_per_ip,
        ),
        clock,
        max_refused=MAX_REFUSED,
        shared_limits=shared_limits,
    )
    context = NamespaceContext(
        sockets_config(settings),
        verifier=_build_verifier(settings, clock, extensions),
        registry=registry,
        admission=admission,
        event_limits=EventLimits(per_second=limits.events_per_second, burst=limits.event_burst),
        counters=counters,
        refusals=RefusalLog(clock),
        clock=clock,
        guards=extensions.guards,
        listener=listener,
    )
    return Clients(registry, connection_limits, admission, context)


def _build_verifier(settings: Settings, clock: Clock, extensions: Extensions) -> Verifier:
    if extensions.authenticate is not None:
        return ApplicationVerifier(extensions.authenticate, clock)
    config = replace(access_config(settings), keep_claims=extensions.read_claims)
    return build_verifier(config, clock)


def build_delivery(
    settings: Settings, clock: Clock, counters: Counters, backend: Backend
) -> Delivery:
    """The hub of this node, and its subscriptions at the broker."""
    offsets = Offsets(secrets.token_hex(2))
    hub = Hub(
        delivery_config(settings),
        clock=clock,
        counters=counters,
        schedule=_schedule,
        offsets=offsets,
    )
    return Delivery(
        hub,
        Freshness(freshness_config(settings), hub, clock),
        offsets,
        NodeSubscriptions(node_subscriptions_config(settings), backend.broker, hub, clock),
    )


def build_market(
    settings: Settings,
    clock: Clock,
    backend: Backend,
    delivery: Delivery,
    rule: AuthorizationRule | None,
) -> Market:
    """Subscribing, publishing and recovery of topics."""
    config = subscribing_config(settings)
    subscriptions = Subscriptions(max_idle=settings.limits.topics_per_connection or NO_LIMIT)
    topics = TopicSubscriptions(config, delivery.node_subscriptions, delivery.freshness)
    publishing = PublishingService(publishing_config(settings), backend.broker, clock)
    subscribing = SubscribingService(config, topics, subscriptions, delivery.hub, rule)
    return Market(
        subscriptions,
        subscribing,
        publishing,
        ClientPublishing(publishing, rule),
        resume_tickets(settings, backend.handover.node),
        MarketRecovery(config, topics, subscribing, subscriptions, delivery.hub),
    )


def build_sessions(
    settings: Settings,
    clock: Clock,
    backend: Backend,
    delivery: Delivery,
    clients: Clients,
    rule: AuthorizationRule | None,
) -> Sessions:
    """Sessions, their messages, and notices."""
    message_bytes = settings.limits.message_bytes or NO_LIMIT
    tickets = resume_tickets(settings, backend.handover.node)
    hub = delivery.hub
    service = SessionsService(
        sessions_config(settings),
        backend.broker,
        backend.presence,
        delivery.node_subscriptions,
        hub,
        tickets,
        rule,
    )
    notifications = Notifications(
        backend.notices, clients.registry, hub, tickets, clock, message_bytes=message_bytes
    )
    return Sessions(
        service,
        SessionMessages(
            service, backend.broker, backend.presence, hub, clock, message_bytes=message_bytes
        ),
        notifications,
        tickets,
        SessionRecovery(service, backend.presence, notifications, hub),
    )


def build_recovery(
    clock: Clock,
    tasks: TaskOwner,
    backend: Backend,
    clients: Clients,
    market: Market,
    sessions: Sessions,
) -> Recovery:
    """Connection state recovery of all namespaces."""
    recovery = Recovery(backend.handover, clock, tasks, clients.context.abort_half_open)
    recovery.add_namespace(MARKET_NAMESPACE, market.tickets, market.recovery)
    recovery.add_namespace(SESSION_NAMESPACE, sessions.tickets, sessions.recovery)
    return recovery


def build_namespaces(
    clients: Clients, recovery: Recovery, market: Market, sessions: Sessions
) -> tuple[GuardedNamespace, ...]:
    """All namespaces that clients can connect to."""
    return (
        MarketNamespace(clients.context, recovery, market.subscribing, market.client_publishing),
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
    clients: Clients,
    delivery: Delivery,
    namespaces: tuple[GuardedNamespace, ...],
) -> SocketServer:
    """The Socket.IO server of these namespaces."""
    return SocketServer(
        namespaces,
        config=transport_config(settings),
        admission=clients.admission,
        offsets=delivery.offsets,
        refusals=clients.context.refusals,
        clock=clock,
    )


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


def _schedule(call: Callable[[], None], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    if seconds:
        loop.call_later(seconds, call)
    else:
        loop.call_soon(call)
