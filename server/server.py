"""One server: its parts, its start and stop, and its drain."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from aiohttp import web

from client_sdk.contract import ErrorCode
from server.access import ConfigurationError
from server.brokers import BrokerError
from server.building import (
    build_api,
    build_application_namespaces,
    build_backend,
    build_canary,
    build_clients,
    build_delivery,
    build_feeds,
    build_hooks,
    build_lifecycle,
    build_market,
    build_namespaces,
    build_recovery,
    build_sessions,
    build_sockets,
    build_statistics,
)
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.sessions.events import SessionEvent
from server.descriptors import DescriptorWatch
from server.draining import Drain
from server.embedding import Extensions
from server.ports import Clock, Feed
from server.services import FeedState, Publisher
from server.settings import Settings
from server.tasks import TaskOwner, cancel_and_wait
from server.tracing import open_tracing

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.05


class SystemClock:
    """The clock of this machine."""

    # The functions themselves: a method around each would double what reading the time costs.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class Server:
    """One server and its parts. Two servers in one process share nothing."""

    def __init__(
        self,
        settings: Settings,
        extensions: Extensions,
        *,
        clock: Clock,
        feeds: Mapping[str, Feed],
        run_feeds: bool = True,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.counters = counters = Counters()
        self.tasks = TaskOwner(counters)
        self.tracing = open_tracing(settings.tracing.sample_ratio)
        self.backend = build_backend(settings, clock, counters, self.tasks, extensions.backend)
        if self.tracing is not None:
            traced = self.tracing.trace_broker(self.backend.broker)
            self.backend = replace(self.backend, broker=traced)
        self.lifecycle = build_lifecycle(counters, self.tasks, extensions.handlers)
        self.hooks = build_hooks(settings, clock, counters, self.tasks, self.backend, extensions)
        self.clients = build_clients(
            settings,
            clock,
            counters,
            self.tasks,
            self.backend.shared_limits,
            extensions,
            self.hooks,
            self.lifecycle,
        )
        self.delivery = build_delivery(settings, clock, counters, self.backend, self.tracing)
        parts = (settings, clock, self.backend, self.delivery)
        self.market = build_market(*parts, self.hooks, counters, self.tasks, self.tracing)
        self.sessions = build_sessions(*parts, self.clients, self.hooks)
        services = (self.market, self.sessions)
        self.recovery = build_recovery(clock, self.tasks, self.backend, self.clients, *services)
        self.namespaces = (
            *build_namespaces(self.clients, self.recovery, *services),
            *build_application_namespaces(
                *parts, self.clients, self.recovery, extensions.namespaces
            ),
        )
        self.sockets = build_sockets(
            settings, clock, self.tasks, self.clients, self.delivery, self.namespaces, extensions
        )
        self.publisher = Publisher(self.market.publishing, self.tasks)
        self.feeds, self._feed_watcher = build_feeds(
            settings,
            clock,
            self.tasks,
            self.delivery,
            self.market,
            self.backend,
            self.lifecycle,
            self.hooks,
            feeds,
        )
        self.statistics = build_statistics(
            counters, self.backend, self.delivery, self.clients, *services
        )
        self.api = build_api(
            *parts,
            self.clients,
            *services,
            self.statistics,
            self.hooks.rule,
            lambda: self.is_ready,
            self.feeds,
        )
        # Whether it has started and does not drain.
        self.ready = False
        self.canary = build_canary(
            settings, clock, counters, self.tasks, self.delivery, self.market
        )
        self._runs_feeds = run_feeds
        self._broker_down_at: float | None = None
        self._loop_lag = self.counters.histogram("loop.lag")
        self.running_drain: Drain | None = None
        self._descriptors = DescriptorWatch(self.counters, clock)

    @property
    def is_ready(self) -> bool:
        """Whether new clients are welcome."""
        return not self.obstacles()

    def obstacles(self) -> list[str]:
        """Why new clients are not welcome; empty if they are.

        Clients do not depend on the canary, nor those of sessions and of other publishers on a
        feed: it counts only if it is required.
        """
        found = [] if self.ready else ["the server is starting or draining"]
        optional = {self.canary.task_name, *(feed.task_name for feed in self.feeds)}
        tasks = self.tasks.failing - optional
        found += [f"the task {name} has failed" for name in sorted(tasks)]
        if self.settings.feed.required:
            feeds = [feed for feed in self.feeds if feed.state is not FeedState.IDLE]
            found += [f"the feed {feed.name} is not live" for feed in feeds if not feed.is_live]
        return found

    @property
    def is_broker_up(self) -> bool:
        """Whether the broker answers, as far as this node knows."""
        return self._broker_down_at is None

    def tick(self) -> None:
        """Run all timers that are due: pings, token expiry, freshness, delivery and notices."""
        self.sockets.eio.tick()
        self.clients.context.tick()
        self.delivery.freshness.tick()
        self.delivery.hub.tick()
        for notice in self.backend.notices.sweep():
            self.lifecycle.on_notice_expired(notice)
            self.hooks.events.on_notice_expired(notice)
        self.backend.occupancy.tick()
        self.backend.kept.sweep()
        self._descriptors.tick()
        for feed in self.feeds:
            feed.tick()
        if self._feed_watcher is not None:
            self._feed_watcher.tick()

    async def run(self, app: web.Application) -> AsyncIterator[None]:
        """Run the server inside its application (an aiohttp cleanup context).

        Each part that has started is stopped, the last one first, even if another fails.
        """
        async with AsyncExitStack() as started:
            try:
                await self._start_backend(started)
            except BrokerError as error:
                raise ConfigurationError(f"broker.url: {error}") from None
            for webhook in (self.hooks.sender, self.hooks.authorizer):
                if webhook is not None:
                    await webhook.start()
                    started.push_async_callback(webhook.stop)
            self.lifecycle.start()
            started.push_async_callback(self.lifecycle.stop)
            started.push_async_callback(self.sockets.close_all, _DRAINING)
            await self.publisher.start()
            started.push_async_callback(self.publisher.stop)
            started.push_async_callback(self.market.candle_keeper.stop)
            timers = {
                "floorcast-tick": self._tick,
                "floorcast-sweep": self._sweep,
                # Many patterns and new symbols may take long.
                "floorcast-patterns": self.market.subscribing.join_matched,
            }
            for name, work in timers.items():
                timer = self.tasks.keep(partial(self._repeat, work), name)
                started.push_async_callback(cancel_and_wait, timer)
            started.push_async_callback(self.stop_feed)
            if self._runs_feeds:
                self.start_feed()
            self.canary.start()
            started.push_async_callback(self.canary.stop)
            self.ready = True
            yield
            self.ready = False

    async def _start_backend(self, started: AsyncExitStack) -> None:
        backend = self.backend
        if self.tracing is not None:
            # It may wait for the network.
            started.push_async_callback(asyncio.to_thread, self.tracing.close)
        # Also if it fails: it may have connected before.
        started.push_async_callback(backend.broker.stop)
        await backend.broker.start(
            self.delivery.hub.deliver,
            on_reset=self.delivery.hub.reset,
            on_state=self._on_broker_state,
        )
        await backend.kept.start()
        started.push_async_callback(backend.kept.stop)
        await backend.presence.start(self._on_session_event)
        started.push_async_callback(backend.presence.stop)
        await backend.notices.start(self.sessions.notifications.deliver)
        started.push_async_callback(backend.notices.stop)
        self.market.wills.start()
        started.push_async_callback(self.market.wills.stop)
        if self._feed_watcher is not None:
            self._feed_watcher.start()
        await backend.occupancy.start(self.lifecycle.on_change, self.market.wills.on_due)
        started.push_async_callback(backend.occupancy.stop)
        await self.recovery.start()
        started.push_async_callback(self.recovery.stop)
        await backend.cluster.start(self.api.node_answers.answer)
        started.push_async_callback(backend.cluster.stop)

    def _on_session_event(self, event: SessionEvent) -> None:
        self.sessions.service.local_presence.handle_event(event)
        self.lifecycle.on_session_event(event)

    def _on_broker_state(self, is_up: bool) -> None:
        if not is_up:
            self._broker_down_at = self.clock.monotonic()
            logger.error("the broker is unavailable: publishing fails until it answers again")
        elif self._broker_down_at is not None:
            seconds = round(self.clock.monotonic() - self._broker_down_at, 1)
            logger.info("the broker is available again", extra={"after_seconds": seconds})
            self._broker_down_at = None
            self.sessions.notifications.mark_unread()
        self.delivery.freshness.set_broker_up(is_up)

    def start_feed(self) -> None:
        """Start the feeds; a no-op if there are none or if they were started."""
        for feed in self.feeds:
            feed.start()

    async def stop_feed(self) -> None:
        """Stop the feeds; they publish nothing after this returns."""
        for feed in self.feeds:
            await feed.stop()

    async def drain(self, seconds: float) -> None:
        """Disconnect all clients within this time, at random moments to spread reconnects."""
        self.ready = False
        self.clients.admission.drain_error = _DRAINING
        self.running_drain = drain = Drain(
            self.sockets.connections(),
            reason=_DRAINING,
            within_seconds=seconds,
            flush=self.delivery.hub.flush,
            clock=self.clock,
        )
        drain.tick()
        while drain:
            await asyncio.sleep(_TICK_SECONDS)
            drain.tick()
        await self.sockets.close_all(_DRAINING)

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
            due = self.clock.monotonic() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            self._loop_lag.observe(self.clock.monotonic() - due)

    async def _tick(self) -> None:
        self.tick()

    async def _sweep(self) -> None:
        """Run the timers that await the broker; a task of its own, so that no ping is delayed."""
        if self.running_drain is None or not self.backend.is_resumed_by_next_run:
            # Otherwise users who are waiting for the restart would leave.
            await self.sessions.service.sweep()
        await self.sessions.notifications.sweep()
        await self.recovery.sweep()
        await self.market.instruments.flush()
        await self.market.topics.rebuild_views()
        await self.market.candle_keeper.sweep()


_DRAINING = FloorcastError(ErrorCode.SERVER_DRAINING, "the server is shutting down: reconnect")
