"""Builds the services of topics and of sessions, their recovery, and the feeds."""

from collections.abc import Mapping
from dataclasses import dataclass

from client_sdk.contract import MARKET_NAMESPACE, SESSION_NAMESPACE, Stream
from server.building.clients import Clients
from server.building.delivery import Delivery
from server.building.hooks import Hooks
from server.configs import (
    NO_LIMIT,
    publishing_config,
    resume_tickets,
    sessions_config,
    subscribing_config,
)
from server.core.counters import Counters
from server.core.market.subscriptions import Subscriptions
from server.core.market.topics import Topic
from server.core.recovery.tickets import ResumeTickets
from server.embedding import Lifecycle
from server.ports import Backend, Clock, Feed
from server.services import (
    Canary,
    CanaryConfig,
    CandleKeeper,
    Candles,
    CandleStore,
    ClientPublishing,
    ClusterDemand,
    ClusterQueries,
    Demand,
    FeedAnnouncer,
    FeedEvent,
    FeedSupervisor,
    FeedWatcher,
    Instruments,
    LocalDemand,
    MarketRecovery,
    NoticeIds,
    Notifications,
    Patterns,
    PublishingService,
    Recovery,
    SeriesLoader,
    SessionMessages,
    SessionRecovery,
    SessionsService,
    SubscribingService,
    TopicSubscriptions,
    WillService,
)
from server.settings import Settings
from server.tasks import TaskOwner
from server.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Market:
    """The services of `/market`."""

    subscriptions: Subscriptions
    demand: LocalDemand
    topics: TopicSubscriptions
    instruments: Instruments
    candle_keeper: CandleKeeper
    candles: Candles
    subscribing: SubscribingService
    publishing: PublishingService
    client_publishing: ClientPublishing
    tickets: ResumeTickets
    recovery: MarketRecovery
    wills: WillService


@dataclass(frozen=True, slots=True)
class Sessions:
    """The services of `/session`."""

    service: SessionsService
    messages: SessionMessages
    notifications: Notifications
    tickets: ResumeTickets
    recovery: SessionRecovery


def build_market(
    settings: Settings,
    clock: Clock,
    backend: Backend,
    delivery: Delivery,
    hooks: Hooks,
    counters: Counters,
    tasks: TaskOwner,
    tracing: Tracing | None,
) -> Market:
    """Subscribing, publishing and recovery of topics."""
    config = subscribing_config(settings)
    subscriptions = Subscriptions(
        max_idle=settings.limits.topics_per_connection or NO_LIMIT, uses=hooks.topic_uses
    )
    instruments = Instruments(backend.kept, delivery.hub, clock)
    patterns = Patterns(instruments.table)
    instruments.listen(
        on_topic=patterns.on_topic,
        on_trading_state=lambda each: delivery.freshness.set_trading_state(
            each.symbol, each.trading_state
        ),
    )
    store = CandleStore(backend.kept, clock, max_bars=settings.candles.bars)
    loader = SeriesLoader(store, delivery.node_subscriptions)
    topics = TopicSubscriptions(
        config,
        delivery.node_subscriptions,
        delivery.freshness,
        delivery.hub,
        instruments.table,
        loader,
    )
    keeper = CandleKeeper(store, loader, topics, delivery.hub, clock)

    def on_published(topic: Topic, ts_ms: int) -> None:
        instruments.record(topic, ts_ms)
        if topic.stream is Stream.TRADES:
            keeper.record(topic, ts_ms)

    create = PublishingService if tracing is None else tracing.trace_publishing
    publishing = create(
        publishing_config(settings), backend.broker, clock, on_published, instruments.forget
    )
    subscribing = SubscribingService(
        config, topics, subscriptions, delivery.hub, instruments, patterns, hooks.rule
    )
    client_publishing = ClientPublishing(publishing, clock, hooks.rule)
    return Market(
        subscriptions,
        LocalDemand(subscriptions, patterns),
        topics,
        instruments,
        keeper,
        Candles(topics, hooks.rule),
        subscribing,
        publishing,
        client_publishing,
        resume_tickets(settings, backend.handover.node),
        MarketRecovery(
            config, topics, subscribing, subscriptions, delivery.hub, instruments, patterns
        ),
        WillService(
            backend.occupancy,
            publishing,
            client_publishing,
            counters,
            tasks,
            max_seconds=settings.market.will_seconds,
        ),
    )


def build_sessions(
    settings: Settings,
    clock: Clock,
    backend: Backend,
    delivery: Delivery,
    clients: Clients,
    hooks: Hooks,
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
        hooks.rule,
        uses=hooks.session_uses,
    )
    notifications = Notifications(
        backend.notices,
        clients.registry,
        hub,
        tickets,
        clock,
        message_bytes=message_bytes,
        ids=NoticeIds(backend.kept, clock, keep_seconds=settings.market.idempotency_seconds),
    )
    return Sessions(
        service,
        SessionMessages(
            service,
            backend.broker,
            backend.presence,
            hub,
            clock,
            message_bytes=message_bytes,
            page_bytes=settings.delivery.backlog_bytes,
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


def build_feeds(
    settings: Settings,
    clock: Clock,
    tasks: TaskOwner,
    delivery: Delivery,
    market: Market,
    backend: Backend,
    lifecycle: Lifecycle,
    hooks: Hooks,
    feeds: Mapping[str, Feed],
) -> tuple[tuple[FeedSupervisor, ...], FeedWatcher | None]:
    """The feeds of this server, of which none runs yet, and the watcher of all nodes' feeds."""

    def report(event: FeedEvent) -> None:
        lifecycle.on_feed_event(event)
        hooks.events.on_feed_event(event)

    node = backend.cluster.node
    cluster = ClusterQueries(backend.cluster)
    announcer = FeedAnnouncer(node, cluster, tasks)
    demand = Demand(ClusterDemand(cluster).names, market.instruments.table, clock)
    supervisors = tuple(
        FeedSupervisor(
            name,
            feed,
            market.publishing,
            market.instruments,
            delivery.freshness,
            clock,
            tasks,
            demand=demand,
            silent_seconds=settings.feed.silent_seconds,
            on_event=report,
            announce=announcer.announce,
            task_name=f"floorcast-feed-{name}",
        )
        for name, feed in feeds.items()
    )
    if backend.feed_watch is None:
        return supervisors, None
    watcher = FeedWatcher(backend.feed_watch, supervisors, announcer, clock, report)
    return supervisors, watcher


def build_canary(
    settings: Settings,
    clock: Clock,
    counters: Counters,
    tasks: TaskOwner,
    delivery: Delivery,
    market: Market,
) -> Canary:
    """The canary of this process; it may be turned off."""
    return Canary(
        CanaryConfig(settings.admin.canary_topics),
        delivery.hub,
        market.topics,
        market.publishing.topics,
        clock,
        counters,
        tasks,
    )
