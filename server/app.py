"""Composes the server once: settings become parts, and parts become one application."""

import asyncio
import contextlib
import logging
import math
import random
import secrets
import time
from collections.abc import AsyncIterator

from aiohttp import web

from client_sdk.contract import ErrorCode
from server.access import AccessConfig, build_verifier
from server.brokers import MemoryBroker
from server.core.connections import ConnectionManager
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.event_limits import EventLimits
from server.core.limits import ConnectionLimits, ConnectRate
from server.core.subscriptions import Subscriptions
from server.delivery import Fanout
from server.feeds import SimulatedFeed
from server.ports import Clock, Feed
from server.services import PublishingService, SubscribingService
from server.settings import Settings
from server.sockets import Floor, MarketNamespace, SessionNamespace, SocketsConfig
from server.transport import MAX_REFUSED, SOCKET_PATH, Admission, SocketServer, TransportConfig
from server.web import add_console, add_health

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.05


class SystemClock:
    """The time of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()


class Server:
    """One server and its parts. Two of them share nothing."""

    def __init__(self, settings: Settings, *, clock: Clock, feed: Feed | None) -> None:
        self.settings = settings
        self.clock = clock
        self.feed = feed
        self.ready = False
        limits = settings.limits
        access = access_config(settings)
        self.registry = ConnectionManager()
        self.counters = Counters()
        self.connection_limits = ConnectionLimits(
            total=limits.connections,
            per_ip=limits.connections_per_ip,
            per_user=limits.connections_per_user,
        )
        self.admission = Admission(
            self.connection_limits,
            ConnectRate(
                per_second=limits.connects_per_second,
                per_second_per_ip=limits.connects_per_second_per_ip,
            ),
            clock,
            max_refused=MAX_REFUSED,
        )
        self.broker = MemoryBroker(epoch=secrets.token_hex(4))
        self.subscriptions = Subscriptions()
        self.fanout = Fanout(
            self.subscriptions,
            schedule=lambda flush: asyncio.get_running_loop().call_soon(flush),
            max_buffered_bytes=settings.delivery.buffer_bytes or NO_LIMIT,
        )
        self.publishing = PublishingService(
            self.broker, clock, max_message_bytes=limits.message_bytes or NO_LIMIT
        )
        self.floor = Floor(
            SocketsConfig(
                anonymous_market=access.market_optional,
                ping_interval_ms=int(settings.ping.interval_seconds * 1000),
                resume_window_ms=int(settings.recovery.window_seconds * 1000),
                expiring_notice_seconds=settings.auth.expiring_notice_seconds,
                expiry_grace_seconds=settings.auth.expiry_grace_seconds,
            ),
            verifier=build_verifier(access, clock),
            registry=self.registry,
            event_limits=EventLimits(per_second=limits.events_per_second, burst=limits.event_burst),
            counters=self.counters,
            clock=clock,
        )
        self.sockets = SocketServer(
            config=transport_config(settings), admission=self.admission, clock=clock
        )
        subscribing = SubscribingService(
            self.broker,
            self.subscriptions,
            self.fanout,
            max_topics=limits.topics_per_connection,
        )
        self.sockets.register_namespace(MarketNamespace(self.floor, subscribing))
        self.sockets.register_namespace(SessionNamespace(self.floor))

    def tick(self) -> None:
        """Look after everything whose moment has come."""
        self.sockets.eio.tick()
        self.floor.tick()

    async def run(self, app: web.Application) -> AsyncIterator[None]:
        """The life of the server inside its application."""
        await self.broker.start(self.fanout.deliver)
        create_task = asyncio.get_running_loop().create_task
        tasks = [create_task(self._keep_ticking(), name="floorcast-tick")]
        if self.feed is not None:
            tasks.append(create_task(self._keep_feeding(self.feed), name="floorcast-feed"))
        self.ready = True
        yield
        self.ready = False
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self.sockets.end_all(_DRAINING)
        await self.broker.stop()

    async def drain(self, seconds: float) -> None:
        """Send everybody away, each at a moment of its own, within this time."""
        self.ready = False
        self.admission.closed_for = _DRAINING
        spread = seconds / 2
        leaving = []
        for connection in self.sockets.connections():
            wait = random.uniform(0, spread)
            connection.tell("reconnect_hint", {"after_ms": int(wait * 1000)})
            leaving.append((wait, connection))
        began = self.clock.monotonic()
        for wait, connection in sorted(leaving, key=lambda each: each[0]):
            await asyncio.sleep(max(0.0, began + wait - self.clock.monotonic()))
            connection.end(_DRAINING, reconnect=True)

    async def _keep_feeding(self, feed: Feed) -> None:
        try:
            await feed.run(self.publishing)
        except Exception:
            # The server goes on: what its clients share does not depend on one feed.
            logger.exception("the feed has failed")

    async def _keep_ticking(self) -> None:
        while True:
            self.tick()
            await asyncio.sleep(_TICK_SECONDS)


_DRAINING = FloorcastError(ErrorCode.SERVER_DRAINING, "the server is going down")

SERVER: web.AppKey[Server] = web.AppKey("floorcast", Server)


def create_app(
    settings: Settings,
    *,
    clock: Clock | None = None,
    feed: Feed | None = None,
    console_token: str | None = None,
) -> web.Application:
    """The server as an aiohttp application; its parts are at `app[SERVER]`."""
    clock = clock or SystemClock()
    if feed is None and settings.feed.name == "simulated":
        feed = SimulatedFeed(clock)
    server = Server(settings, clock=clock, feed=feed)
    app = web.Application()
    app[SERVER] = server
    app.cleanup_ctx.append(contextlib.asynccontextmanager(server.run))
    server.sockets.attach(app, SOCKET_PATH)
    add_health(app, is_ready=lambda: server.ready)
    if console_token is not None:
        add_console(app, token=console_token)
    return app


def access_config(settings: Settings) -> AccessConfig:
    """The settings of access, judged together."""
    auth = settings.auth
    return AccessConfig(
        algorithm=auth.algorithm,
        secret=None if auth.secret is None else auth.secret.get_secret_value(),
        public_key_file=auth.public_key_file,
        jwks_url=auth.jwks_url,
        issuer=auth.issuer,
        audience=auth.audience,
        leeway_seconds=auth.leeway_seconds,
        market_optional=auth.market_optional,
        token_in_query=auth.token_in_query,
    )


# What a limit of 0 stands for: more than any machine has.
NO_LIMIT = 2**53


def transport_config(settings: Settings) -> TransportConfig:
    """The settings of the transport."""
    limits, server = settings.limits, settings.server
    return TransportConfig(
        transports=server.transports,
        origins=server.origins,
        trusted_proxies=server.trusted_proxies,
        token_in_query=settings.auth.token_in_query,
        compression=server.compression,
        ping_interval_seconds=settings.ping.interval_seconds,
        ping_timeout_seconds=settings.ping.timeout_seconds,
        join_timeout_seconds=limits.join_timeout_seconds or math.inf,
        body_timeout_seconds=limits.head_timeout_seconds,
        message_bytes=limits.message_bytes or NO_LIMIT,
        buffer_bytes=settings.delivery.buffer_bytes or NO_LIMIT,
        polling_packets=limits.polling_packets,
    )
