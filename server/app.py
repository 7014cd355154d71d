"""Composes the server from its settings into one aiohttp application."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from aiohttp import web

from client_sdk.contract import MARKET_NAMESPACE, SESSION_NAMESPACE, ErrorCode
from server.access import ConfigurationError, build_verifier
from server.brokers import (
    BrokerError,
    MemoryBroker,
    MemoryHandover,
    MemoryNoticeStore,
    MemoryPresence,
    RedisBroker,
    RedisHandover,
    RedisNoticeStore,
    RedisPresence,
    RedisSharedLimits,
)
from server.configs import (
    NO_LIMIT,
    access_config,
    delivery_config,
    feed_options,
    freshness_config,
    limit_keys,
    memory_config,
    node_subscriptions_config,
    notices,
    publishing_config,
    redis_config,
    resume_tickets,
    session_rules,
    sessions_config,
    sockets_config,
    subscribing_config,
    transport_config,
)
from server.core.connections import ConnectionManager
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.limits.connections import ConnectionLimits, ConnectRate
from server.core.limits.events import EventLimits
from server.core.market.subscriptions import Subscriptions
from server.core.recovery.offsets import Offsets
from server.delivery import Freshness, Hub
from server.draining import Drain
from server.feeds import FeedError, open_feed
from server.ports import Broker, Clock, Feed, Handover, NoticeStore, PresenceManager, SharedLimits
from server.services import (
    ClientPublishing,
    FeedPublisher,
    MarketRecovery,
    NodeSubscriptions,
    Notifications,
    Publisher,
    PublishingService,
    Recovery,
    SessionMessages,
    SessionRecovery,
    SessionsService,
    Statistics,
    SubscribingService,
    TopicSubscriptions,
)
from server.settings import Settings
from server.sockets import (
    GuardedNamespace,
    MarketNamespace,
    NamespaceContext,
    SessionNamespace,
)
from server.tasks import TaskOwner, cancel_and_wait
from server.transport import MAX_REFUSED, SOCKET_PATH, Admission, RefusalLog, SocketServer
from server.web import add_console, add_health

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.05
_FEED_TASK = "floorcast-feed"


class SystemClock:
    """The clock of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()


class Server:
    """One server and its parts. Two servers in one process share nothing."""

    def __init__(
        self, settings: Settings, *, clock: Clock, feed: Feed | None, run_feed: bool = True
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.feed = feed
        self._runs_feed = run_feed
        self._feed_task: asyncio.Task[None] | None = None
        # Whether it has started and does not drain.
        self.ready = False
        self._broker_down_at: float | None = None
        limits = settings.limits
        access = access_config(settings)
        self.registry = ConnectionManager()
        self.counters = Counters()
        self.tasks = TaskOwner(self.counters)
        self.broker, self.presence, notice_store, self.handover, shared_limits = _open_broker(
            settings, clock, self.counters, self.tasks
        )
        self.connection_limits = ConnectionLimits(
            total=limits.connections,
            per_ip=limits.connections_per_ip,
            per_user=limits.connections_per_user,
            on_release=None if shared_limits is None else shared_limits.release,
        )
        self.admission = Admission(
            self.connection_limits,
            ConnectRate(
                per_second=limits.connects_per_second,
                per_second_per_ip=limits.connects_per_second_per_ip,
            ),
            clock,
            max_refused=MAX_REFUSED,
            shared_limits=shared_limits,
        )
        self.subscriptions = Subscriptions(max_idle=limits.topics_per_connection or NO_LIMIT)
        self.offsets = Offsets(secrets.token_hex(2))
        self.hub = Hub(
            delivery_config(settings),
            clock=clock,
            counters=self.counters,
            schedule=_schedule,
            offsets=self.offsets,
        )
        self.freshness = Freshness(freshness_config(settings), self.hub, clock)
        self.publishing = PublishingService(publishing_config(settings), self.broker, clock)
        self.publisher = Publisher(self.publishing, self.tasks)
        self.refusals = RefusalLog(clock)
        self.context = NamespaceContext(
            sockets_config(settings),
            verifier=build_verifier(access, clock),
            registry=self.registry,
            admission=self.admission,
            event_limits=EventLimits(per_second=limits.events_per_second, burst=limits.event_burst),
            counters=self.counters,
            refusals=self.refusals,
            clock=clock,
        )
        self.sockets = SocketServer(
            config=transport_config(settings),
            admission=self.admission,
            offsets=self.offsets,
            refusals=self.refusals,
            clock=clock,
        )
        node_subscriptions = NodeSubscriptions(
            node_subscriptions_config(settings), self.broker, self.hub, clock
        )
        config = subscribing_config(settings)
        topics = TopicSubscriptions(config, node_subscriptions, self.freshness)
        subscribing = SubscribingService(config, topics, self.subscriptions, self.hub)
        self.market_tickets = resume_tickets(settings, self.handover.node)
        self.session_tickets = resume_tickets(settings, self.handover.node)
        self.recovery = Recovery(self.handover, clock, self.context.abort_half_open)
        self.recovery.add_namespace(
            MARKET_NAMESPACE,
            self.market_tickets,
            MarketRecovery(config, topics, subscribing, self.subscriptions, self.hub),
        )
        client_publishing = ClientPublishing(self.publishing)
        self.sessions = SessionsService(
            sessions_config(settings),
            self.broker,
            self.presence,
            node_subscriptions,
            self.hub,
            self.session_tickets,
        )
        messages = SessionMessages(
            self.sessions,
            self.broker,
            self.presence,
            self.hub,
            clock,
            message_bytes=limits.message_bytes or NO_LIMIT,
        )
        self.notifications = Notifications(
            notice_store,
            self.registry,
            self.hub,
            self.session_tickets,
            clock,
            message_bytes=limits.message_bytes or NO_LIMIT,
        )
        self.recovery.add_namespace(
            SESSION_NAMESPACE,
            self.session_tickets,
            SessionRecovery(self.sessions, self.presence, self.notifications, self.hub),
        )
        self.namespaces: tuple[GuardedNamespace, ...] = (
            MarketNamespace(self.context, self.recovery, subscribing, client_publishing),
            SessionNamespace(
                self.context, self.recovery, self.sessions, messages, self.notifications
            ),
        )
        for namespace in self.namespaces:
            self.sockets.register_namespace(namespace)
        self.statistics = Statistics(
            self.registry,
            self.counters,
            self.hub,
            self.publishing,
            self.presence,
            self.sessions,
            messages,
            self.notifications,
            shared_limits,
        )

    @property
    def is_ready(self) -> bool:
        """Whether new clients are welcome: all tasks but the feed's run, and it does not drain.

        Sessions and other publishers do not depend on the feed.
        """
        return self.ready and self.tasks.failing <= {_FEED_TASK}

    def tick(self) -> None:
        """Run all timers that are due: pings, token expiry, freshness, delivery and notices."""
        self.sockets.eio.tick()
        self.context.tick()
        self.freshness.tick()
        self.hub.tick()
        self.notifications.store.sweep()

    async def run(self, app: web.Application) -> AsyncIterator[None]:
        """Run the server inside its application (an aiohttp cleanup context)."""
        try:
            await self.broker.start(
                self.hub.deliver,
                on_reset=self.hub.reset,
                on_state=self._on_broker_state,
            )
            await self.presence.start(self.sessions.local_presence.handle_event)
            await self.notifications.store.start(self.notifications.deliver)
            await self.recovery.start()
        except BrokerError as error:
            await self.broker.stop()
            raise ConfigurationError(f"broker.url: {error}") from None
        await self.publisher.start()
        timers = [
            self.tasks.keep(partial(self._repeat, self._tick), "floorcast-tick"),
            self.tasks.keep(partial(self._repeat, self._sweep), "floorcast-sweep"),
        ]
        if self._runs_feed:
            self.start_feed()
        self.ready = True
        yield
        self.ready = False
        await self.stop_feed()
        await cancel_and_wait(*timers)
        await self.publisher.stop()
        await self.sockets.close_all(_DRAINING)
        await self.recovery.stop()
        await self.notifications.store.stop()
        await self.presence.stop()
        await self.broker.stop()

    def _on_broker_state(self, is_up: bool) -> None:
        if not is_up:
            self._broker_down_at = self.clock.monotonic()
            logger.error("the broker is unavailable: publishing fails until it answers again")
        elif self._broker_down_at is not None:
            seconds = round(self.clock.monotonic() - self._broker_down_at, 1)
            logger.info("the broker is available again", extra={"after_seconds": seconds})
            self._broker_down_at = None
        self.freshness.set_broker_up(is_up)

    def start_feed(self) -> None:
        """Start the feed; a no-op if there is none or if it is running."""
        if self.feed is not None and self._feed_task is None:
            self._feed_task = self.tasks.keep(
                partial(self._run_feed, self.feed), _FEED_TASK, may_end=True
            )

    async def stop_feed(self) -> None:
        """Stop the feed; it publishes nothing after this returns."""
        if self._feed_task is not None:
            await cancel_and_wait(self._feed_task)

    async def drain(self, seconds: float) -> None:
        """Disconnect all clients within this time, at random moments to spread reconnects."""
        self.ready = False
        self.admission.drain_error = _DRAINING
        drain = Drain(
            self.sockets.connections(),
            reason=_DRAINING,
            within_seconds=seconds,
            flush=self.hub.flush,
            clock=self.clock,
        )
        drain.tick()
        while drain:
            await asyncio.sleep(_TICK_SECONDS)
            drain.tick()
        await self.sockets.close_all(_DRAINING)

    async def _run_feed(self, feed: Feed) -> None:
        await feed.run(FeedPublisher(self.publishing))
        logger.info("feed ended")

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        failures: set[type[Exception]] = set()
        while True:
            try:
                await work()
            except Exception as failure:
                # Pings, slow consumers and expiry depend on ticks: keep going. Logged once for each
                # type of failure, which may repeat at every tick.
                self.counters.add("tasks.failed")
                if type(failure) not in failures:
                    failures.add(type(failure))
                    logger.exception("tick failed")
            await asyncio.sleep(_TICK_SECONDS)

    async def _tick(self) -> None:
        self.tick()

    async def _sweep(self) -> None:
        """Run the timers that await the broker; a task of its own, so that no ping is delayed."""
        await self.sessions.sweep()
        await self.recovery.sweep()


def _open_broker(
    settings: Settings, clock: Clock, counters: Counters, tasks: TaskOwner
) -> tuple[Broker, PresenceManager, NoticeStore, Handover, SharedLimits | None]:
    rules, pending_notices = session_rules(settings), notices(settings)
    if settings.broker.url.in_memory:
        return (
            MemoryBroker(clock, epoch=secrets.token_hex(4), config=memory_config(settings)),
            MemoryPresence(clock, rules),
            MemoryNoticeStore(clock, pending_notices),
            MemoryHandover(),
            None,
        )
    config = redis_config(settings)
    broker = RedisBroker(clock, counters, config, tasks)
    keep_seconds = settings.session.notice_seconds
    presence = RedisPresence(clock, config, rules, broker)
    shared_limits = None
    if settings.limits.shared:
        shared_limits = RedisSharedLimits(
            clock, counters, limit_keys(settings), presence, prefix=config.prefix
        )
    return (
        broker,
        presence,
        RedisNoticeStore(clock, config, broker, pending_notices, keep_seconds=keep_seconds),
        RedisHandover(config, broker, counters, window_seconds=settings.recovery.window_seconds),
        shared_limits,
    )


def _schedule(call: Callable[[], None], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    if seconds:
        loop.call_later(seconds, call)
    else:
        loop.call_soon(call)


_DRAINING = FloorcastError(ErrorCode.SERVER_DRAINING, "the server is shutting down: reconnect")

SERVER: web.AppKey[Server] = web.AppKey("floorcast", Server)


def create_app(
    settings: Settings,
    *,
    clock: Clock | None = None,
    feed: Feed | None = None,
    console_token: str | None = None,
    run_feed: bool = True,
) -> web.Application:
    """Create the aiohttp application; its server is `app[SERVER]`.

    Without `run_feed`, the feed waits for `Server.start_feed`. Raises `ConfigurationError` if
    the settings are invalid.
    """
    clock = clock or SystemClock()
    if feed is None:
        try:
            feed = open_feed(settings.feed.name, feed_options(settings, clock))
        except FeedError as error:
            raise ConfigurationError(f"feed.name: {error}") from error
    server = Server(settings, clock=clock, feed=feed, run_feed=run_feed)
    app = web.Application()
    app[SERVER] = server
    app.cleanup_ctx.append(contextlib.asynccontextmanager(server.run))
    server.sockets.attach(app, SOCKET_PATH)
    add_health(app, is_ready=lambda: server.is_ready)
    if console_token is not None:
        add_console(app, token=console_token)
    return app
