"""Builds what all namespaces share: the registry, the limits and the verifier."""

from dataclasses import dataclass, replace

from server.access import build_verifier
from server.building.hooks import Hooks
from server.configs import access_config, sockets_config
from server.core.connections import ConnectionManager
from server.core.counters import Counters
from server.core.limits.connections import ConnectionLimits, ConnectRate
from server.core.limits.events import EventLimits
from server.embedding import ApplicationVerifier, Extensions, Lifecycle
from server.ports import Clock, SharedLimits
from server.settings import Settings
from server.sockets import NamespaceContext, Verifier
from server.transport import MAX_REFUSED, Admission, RefusalLog


@dataclass(frozen=True, slots=True)
class Clients:
    """The connections of this node, and what admits and counts them."""

    registry: ConnectionManager
    limits: ConnectionLimits
    admission: Admission
    context: NamespaceContext


def build_clients(
    settings: Settings,
    clock: Clock,
    counters: Counters,
    shared_limits: SharedLimits | None,
    extensions: Extensions,
    hooks: Hooks,
    lifecycle: Lifecycle,
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
        refusals=RefusalLog(clock, counters),
        clock=clock,
        guards=extensions.guards,
        listeners=(*hooks.listeners, lifecycle),
        rule=hooks.rule,
    )
    return Clients(registry, connection_limits, admission, context)


def _build_verifier(settings: Settings, clock: Clock, extensions: Extensions) -> Verifier:
    if extensions.authenticate is not None:
        return ApplicationVerifier(extensions.authenticate, clock)
    keep_claims = extensions.read_claims or settings.hooks.authorize_url is not None
    config = replace(access_config(settings), keep_claims=keep_claims)
    return build_verifier(config, clock)
