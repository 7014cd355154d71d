"""Builds the hub of this node and its subscriptions at the broker."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from server.configs import delivery_config, freshness_config, history_rules
from server.core.counters import Counters
from server.core.recovery.offsets import Offsets
from server.delivery import Hub
from server.delivery.context import Schedule
from server.ports import Backend, Clock
from server.services import Freshness, NodeSubscriptions
from server.settings import Settings
from server.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Delivery:
    """The hub with what it is made of."""

    hub: Hub
    freshness: Freshness
    offsets: Offsets
    node_subscriptions: NodeSubscriptions


def build_delivery(
    settings: Settings,
    clock: Clock,
    counters: Counters,
    backend: Backend,
    tracing: Tracing | None,
) -> Delivery:
    """The hub of this node, and its subscriptions at the broker."""
    offsets = Offsets(secrets.token_hex(2))
    schedule: Schedule = _schedule
    if tracing is not None:
        schedule = tracing.trace_flushes(_schedule, lambda: hub.has_pending())
    hub = Hub(
        delivery_config(settings),
        clock=clock,
        counters=counters,
        schedule=schedule,
        offsets=offsets,
    )
    return Delivery(
        hub,
        Freshness(freshness_config(settings), hub, clock),
        offsets,
        NodeSubscriptions(history_rules(settings), backend.broker, hub, clock),
    )


def _schedule(call: Callable[[], None], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    if seconds:
        loop.call_later(seconds, call)
    else:
        loop.call_soon(call)
