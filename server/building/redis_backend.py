"""Builds the backend of many nodes, over Redis."""

from server.brokers import (
    NodeSession,
    RedisBroker,
    RedisCluster,
    RedisFeedWatch,
    RedisHandover,
    RedisHookQueue,
    RedisKeptValues,
    RedisNoticeStore,
    RedisOccupancy,
    RedisPresence,
    RedisSharedLimits,
)
from server.configs import limit_keys, notice_limits, occupancy_config, redis_config, session_rules
from server.core.counters import Counters
from server.ports import Backend, Clock
from server.settings import Settings
from server.tasks import TaskOwner


def build_redis_backend(
    settings: Settings, clock: Clock, counters: Counters, tasks: TaskOwner
) -> Backend:
    """The backend of the Redis that `broker.url` names."""
    config = redis_config(settings)
    broker = RedisBroker(clock, counters, config, tasks)
    session = NodeSession(clock, config, tasks, broker.node)
    presence = RedisPresence(clock, config, session_rules(settings), broker, session)
    shared_limits = None
    if settings.limits.shared:
        shared_limits = RedisSharedLimits(
            clock, counters, limit_keys(settings), session, prefix=config.prefix
        )
    occupancy = RedisOccupancy(
        clock,
        counters,
        occupancy_config(settings),
        session,
        tasks,
        node=broker.node,
        prefix=config.prefix,
        lease_seconds=config.lease_seconds,
    )
    return Backend(
        broker,
        presence,
        RedisNoticeStore(clock, config, broker, notice_limits(settings)),
        RedisHandover(config, broker, counters, window_seconds=settings.recovery.window_seconds),
        RedisKeptValues(clock, config, broker),
        RedisCluster(config, broker),
        occupancy,
        RedisHookQueue(occupancy, occupancy_config(settings).queued, counters),
        shared_limits,
        RedisFeedWatch(occupancy),
    )
