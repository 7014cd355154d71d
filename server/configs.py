"""Derives the config of each part of the server from the settings."""

import math
import sys
from pathlib import Path

from client_sdk.contract import Stream
from server.access import AccessConfig, ConfigurationError
from server.brokers import Address, FileConfig, MemoryConfig, RedisConfig, RedisShares
from server.core.limits.keys import ConnectionLimit, LimitKeys
from server.core.limits.shares import Quota, ShareLimits
from server.core.log.history import HistoryBounds
from server.core.occupancy.config import OccupancyConfig
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.histories import HistoryRules
from server.core.sessions.notices import NoticeLimits, Notices
from server.core.sessions.records import SessionRules
from server.delivery import DeliveryConfig
from server.ports import Clock, FeedOptions
from server.services import (
    FreshnessConfig,
    PublishingConfig,
    RoomsConfig,
    SessionsConfig,
    SubscribingConfig,
    TopicSharesConfig,
)
from server.settings import Settings
from server.sockets import SocketsConfig
from server.transport import TransportConfig
from server.web.api import ApiConfig

# The value of a limit that is set to 0, "no limit".
NO_LIMIT = 2**53


def access_config(settings: Settings) -> AccessConfig:
    auth = settings.auth
    return AccessConfig(
        algorithm=auth.algorithm,
        secret=None if auth.secret is None else auth.secret.get_secret_value(),
        public_key_file=auth.public_key_file,
        jwks_url=None if auth.jwks_url is None else auth.jwks_url.get_secret_value(),
        issuer=auth.issuer,
        audience=auth.audience,
        leeway_seconds=auth.leeway_seconds,
        market_optional=auth.market_optional,
        token_in_query=auth.token_in_query,
    )


def is_shared(settings: Settings) -> bool:
    """Check that several processes can share the broker."""
    url = settings.broker.url
    return not url.in_memory and url.folder is None


def check_workers(settings: Settings) -> None:
    """Raise `ConfigurationError` if several workers are not possible with these settings."""
    workers = settings.server.workers
    if workers > 1 and not is_shared(settings):
        raise ConfigurationError(
            f"server.workers: {workers} workers need a Redis that they share: set broker.url to one"
        )
    if workers > 1 and sys.platform != "linux":
        raise ConfigurationError("server.workers: more than 1 needs Linux")


def delivery_config(settings: Settings) -> DeliveryConfig:
    delivery = settings.delivery
    return DeliveryConfig(
        buffer_bytes=delivery.buffer_bytes or NO_LIMIT,
        stalled_seconds=delivery.stalled_seconds,
        join_seconds=delivery.join_ms / 1000,
        recoverable=settings.recovery.window_seconds > 0,
        backlog_messages=delivery.backlog_messages,
    )


def backlog_age_ms(settings: Settings) -> int:
    """How long a node keeps a message for clients that catch up; a resume never needs it longer."""
    return int(max(settings.delivery.backlog_seconds, settings.recovery.window_seconds) * 1000)


def subscribing_config(settings: Settings) -> SubscribingConfig:
    """The config of topic subscriptions."""
    delivery = settings.delivery
    return SubscribingConfig(
        max_topics=settings.limits.topics_per_connection,
        # The other half of the buffer is for messages delivered meanwhile.
        max_reply_bytes=(delivery.buffer_bytes or NO_LIMIT) // 2,
        backlog_messages=delivery.backlog_messages,
        backlog_bytes=delivery.backlog_bytes,
        backlog_age_ms=backlog_age_ms(settings),
    )


def rooms_config(settings: Settings) -> RoomsConfig:
    """The limits of rooms on one node: a room counts as a topic."""
    delivery = settings.delivery
    return RoomsConfig(
        max_rooms=settings.limits.topics_per_connection,
        message_bytes=settings.limits.message_bytes or NO_LIMIT,
        backlog_messages=delivery.backlog_messages,
        backlog_bytes=delivery.backlog_bytes,
        backlog_age_ms=backlog_age_ms(settings),
    )


def memory_config(settings: Settings) -> MemoryConfig:
    shares = settings.shares
    return MemoryConfig(
        # `TopicShares` and the presence manager refuse earlier.
        max_channels=(shares.topics or NO_LIMIT) + (settings.session.total or NO_LIMIT),
        max_claims=shares.ids or NO_LIMIT,
        max_claims_per_org=shares.ids_per_org or NO_LIMIT,
        max_claims_per_publisher=shares.ids_per_publisher or NO_LIMIT,
        org_bytes=shares.history_bytes_per_org or NO_LIMIT,
        idempotency_seconds=settings.market.idempotency_seconds,
        histories=history_rules(settings),
    )


def history_rules(settings: Settings) -> HistoryRules:
    """The bounds of histories by kind of channel."""
    topics, sessions, delivery = settings.history, settings.session.history, settings.delivery
    return HistoryRules(
        HistoryBounds(
            messages=topics.messages or NO_LIMIT,
            bytes=topics.bytes or NO_LIMIT,
            seconds=topics.seconds or NO_LIMIT,
            total_bytes=topics.total_bytes or NO_LIMIT,
        ),
        HistoryBounds(
            messages=sessions.messages or NO_LIMIT,
            bytes=sessions.bytes or NO_LIMIT,
            seconds=sessions.seconds or NO_LIMIT,
            total_bytes=sessions.total_bytes or NO_LIMIT,
            replay_messages=delivery.backlog_messages,
            replay_bytes=delivery.backlog_bytes,
        ),
    )


def file_config(settings: Settings, folder: Path) -> FileConfig:
    broker = settings.broker
    return FileConfig(
        folder,
        sync=broker.sync,
        max_bytes=broker.max_bytes,
        max_waiting=broker.waiting,
        timeout_seconds=broker.timeout_seconds,
    )


def redis_config(settings: Settings) -> RedisConfig:
    broker = settings.broker
    return RedisConfig(
        address=Address.parse(broker.url.get_secret_value()),
        prefix=broker.prefix,
        timeout_seconds=broker.timeout_seconds,
        max_queued=broker.waiting,
        max_entry_bytes=broker.entry_bytes,
        idle_seconds=broker.idle_seconds,
        lease_seconds=broker.lease_seconds,
        acknowledging_replicas=int(broker.acknowledge == "replicas"),
        idempotency_seconds=settings.market.idempotency_seconds,
        histories=history_rules(settings),
        shares=redis_shares(settings),
    )


def redis_shares(settings: Settings) -> RedisShares:
    """The shares of orgs and publishers in Redis."""
    shares, rules = settings.shares, history_rules(settings)
    org = Quota(size_bytes=shares.history_bytes_per_org or NO_LIMIT)
    return RedisShares(
        topics=topic_limits(settings),
        histories=ShareLimits(Quota(size_bytes=rules.topics.total_bytes), org, Quota()),
        session_histories=ShareLimits(Quota(size_bytes=rules.sessions.total_bytes), org, Quota()),
        claims=ShareLimits(
            Quota(shares.ids or NO_LIMIT),
            Quota(shares.ids_per_org or NO_LIMIT),
            Quota(shares.ids_per_publisher or NO_LIMIT),
        ),
        silent_seconds=_silent_seconds(settings),
    )


def limit_keys(settings: Settings) -> LimitKeys:
    """The connection limits of addresses and users."""
    limits = settings.limits
    return LimitKeys(
        address=ConnectionLimit(limits.connections_per_ip, limits.connects_per_second_per_ip),
        user=ConnectionLimit(limits.connections_per_user),
    )


def freshness_config(settings: Settings) -> FreshnessConfig:
    """The config of stale topics and heartbeats."""
    market = settings.market
    return FreshnessConfig(
        heartbeat_seconds=market.heartbeat_seconds,
        stale_seconds={
            Stream.PRICE: market.price_stale_seconds,
            Stream.ORDERBOOK: market.orderbook_stale_seconds,
            Stream.TRADES: market.trades_stale_seconds,
        },
    )


def transport_config(settings: Settings) -> TransportConfig:
    limits, server = settings.limits, settings.server
    return TransportConfig(
        transports=server.allowed_transports,
        origins=server.origins,
        trusted_proxies=server.trusted_proxies,
        token_in_query=settings.auth.token_in_query,
        compression=server.compression,
        ping_interval_seconds=settings.ping.interval_seconds,
        ping_timeout_seconds=settings.ping.timeout_seconds,
        join_timeout_seconds=limits.join_timeout_seconds or math.inf,
        body_timeout_seconds=limits.head_timeout_seconds,
        # Several messages fit into one event, and one that is too large still gets its error.
        message_bytes=limits.message_bytes * 2 or NO_LIMIT,
        buffer_bytes=settings.delivery.buffer_bytes or NO_LIMIT,
        polling_packets=limits.polling_packets,
    )


def api_config(settings: Settings) -> ApiConfig:
    """The bounds of requests to the HTTP API."""
    transport = transport_config(settings)
    return ApiConfig(
        body_bytes=transport.message_bytes,
        transfer_seconds=transport.body_timeout_seconds,
        trusted_proxies=transport.trusted_proxies,
    )


def publishing_config(settings: Settings) -> PublishingConfig:
    return PublishingConfig(
        message_bytes=settings.limits.message_bytes or NO_LIMIT,
        book_levels=settings.market.book_levels,
        topics=TopicSharesConfig(topic_limits(settings), _silent_seconds(settings)),
    )


def _silent_seconds(settings: Settings) -> float:
    # What was acknowledged must stay in the history for its time.
    return max(settings.shares.silent_seconds, settings.history.seconds)


def topic_limits(settings: Settings) -> ShareLimits:
    """The limits of the topics of all, of an org and of a publisher."""
    shares = settings.shares
    return ShareLimits(
        Quota(shares.topics or NO_LIMIT, shares.topic_bytes or NO_LIMIT),
        Quota(shares.topics_per_org or NO_LIMIT, shares.topic_bytes_per_org or NO_LIMIT),
        Quota(
            shares.topics_per_publisher or NO_LIMIT, shares.topic_bytes_per_publisher or NO_LIMIT
        ),
    )


def session_rules(settings: Settings) -> SessionRules:
    """The rules of sessions that all nodes share."""
    session = settings.session
    return SessionRules(
        grace_seconds=session.grace_seconds,
        retention_seconds=session.retention_seconds,
        max_sessions=session.total,
        max_sessions_per_org=settings.shares.sessions_per_org,
        max_sessions_per_user=session.per_user,
        max_participants=session.participants,
        join_creates=not session.must_exist,
    )


def sessions_config(settings: Settings) -> SessionsConfig:
    """The limits of sessions on one node."""
    session, delivery = settings.session, settings.delivery
    return SessionsConfig(
        max_per_connection=session.per_connection,
        metadata_bytes=session.metadata_bytes or NO_LIMIT,
        backlog_messages=delivery.backlog_messages,
        backlog_bytes=delivery.backlog_bytes,
        backlog_age_ms=backlog_age_ms(settings),
    )


def notice_limits(settings: Settings) -> NoticeLimits:
    """The limits of unacknowledged notices."""
    shares = settings.shares
    return NoticeLimits(
        settings.session.notice_seconds,
        settings.session.notices_per_user,
        Quota(shares.notices or NO_LIMIT, shares.notice_bytes or NO_LIMIT),
        Quota(shares.notices_per_org or NO_LIMIT, shares.notice_bytes_per_org or NO_LIMIT),
    )


def notices(settings: Settings) -> Notices:
    """The store of unacknowledged notices of a single process."""
    limits = notice_limits(settings)
    return Notices(
        keep_seconds=limits.keep_seconds,
        max_per_user=limits.per_user,
        max_total=limits.total.count,
        total_bytes=limits.total.size_bytes,
        org=limits.org,
    )


def occupancy_config(settings: Settings) -> OccupancyConfig:
    """The config of occupancy, of its events and of wills."""
    hooks, shares = settings.hooks, settings.shares
    return OccupancyConfig(
        grace_seconds=settings.session.grace_seconds,
        queued=frozenset(() if hooks.url is None else hooks.events),
        max_events=hooks.queue,
        keep_seconds=hooks.keep_seconds,
        seen_seconds=settings.session.last_seen_seconds,
        wills=ShareLimits(
            Quota(shares.wills or NO_LIMIT, shares.will_bytes or NO_LIMIT),
            Quota(shares.wills_per_org or NO_LIMIT, shares.will_bytes_per_org or NO_LIMIT),
            Quota(),
        ),
    )


def resume_tickets(settings: Settings, node: str) -> ResumeTickets:
    """The resume tickets of one namespace; a `node` in their pids lets other nodes resume them."""
    recovery = settings.recovery
    return ResumeTickets(
        window_seconds=recovery.window_seconds,
        max_parked=recovery.connections or NO_LIMIT,
        max_parked_per_owner=recovery.per_user or NO_LIMIT,
        node=node,
    )


def sockets_config(settings: Settings) -> SocketsConfig:
    auth = settings.auth
    return SocketsConfig(
        anonymous_market=auth.market_optional,
        ping_interval_ms=int(settings.ping.interval_seconds * 1000),
        resume_window_ms=int(settings.recovery.window_seconds * 1000),
        expiring_notice_seconds=auth.expiring_notice_seconds,
        expiry_grace_seconds=auth.expiry_grace_seconds,
    )


def feed_options(settings: Settings, clock: Clock) -> FeedOptions:
    """The options of every feed; each also gets its name and its table."""
    feed = settings.feed
    if isinstance(feed.symbols, int):
        count, names = feed.symbols, tuple[str, ...]()
    else:
        count, names = len(feed.symbols), feed.symbols
    return FeedOptions(
        clock,
        symbols=count,
        symbol_names=names,
        rate=feed.rate,
        seed=feed.seed,
        speed=feed.speed,
    )
