"""Builds what watches the use of users, sessions and topics, and the calls of webhooks."""

from collections.abc import Collection
from dataclasses import dataclass

from client_sdk.contract import HookType
from server.access import AuthorizationRule
from server.core.counters import Counters
from server.embedding import Extensions, Handlers
from server.hooks import (
    AuthorizerConfig,
    Endpoint,
    HookSender,
    SenderConfig,
    WebhookAuthorizer,
)
from server.ports import Backend, Clock
from server.services import HookEvents, LocalOccupancy, SessionUses, TopicUses, webhook_rule
from server.settings import HookSettings, HookUrl, Settings
from server.sockets import ClientListener, ConnectionReports, UserReports
from server.tasks import TaskOwner

# A slow webhook must not hold more sockets.
_MAX_QUESTIONS = 64


@dataclass(frozen=True, slots=True)
class Hooks:
    """The calls of webhooks, and what tells them."""

    events: HookEvents
    listeners: tuple[ClientListener, ...]
    # The application's rule, and then the webhook's.
    rule: AuthorizationRule | None
    # None if nobody asks for these events.
    session_uses: SessionUses | None
    topic_uses: TopicUses | None
    sender: HookSender | None
    authorizer: WebhookAuthorizer | None


def build_hooks(
    settings: Settings,
    clock: Clock,
    counters: Counters,
    tasks: TaskOwner,
    backend: Backend,
    extensions: Extensions,
) -> Hooks:
    """The webhooks of these settings, and the sources of their events."""
    hooks, handlers = settings.hooks, extensions.handlers
    wanted = frozenset(() if hooks.url is None else hooks.events)
    occupancy = LocalOccupancy(backend.occupancy)
    events = HookEvents(backend.hook_queue, backend.occupancy.node, clock)
    listeners: list[ClientListener] = [UserReports(occupancy)]
    if wanted & {HookType.CONNECTION_OPENED, HookType.CONNECTION_CLOSED}:
        listeners.append(ConnectionReports(events))
    authorizer = _build_authorizer(hooks, clock, counters, tasks)
    return Hooks(
        events,
        tuple(listeners),
        _combine(extensions.authorize, authorizer, hooks),
        SessionUses(occupancy) if _wants_sessions(wanted, handlers) else None,
        TopicUses(occupancy) if _wants_topics(wanted, handlers) else None,
        _build_sender(hooks, clock, counters, tasks, backend),
        authorizer,
    )


def _wants_sessions(wanted: Collection[HookType], handlers: Handlers) -> bool:
    return (
        HookType.SESSION_OCCUPIED in wanted
        or HookType.SESSION_VACATED in wanted
        or handlers.session_occupied is not None
        or handlers.session_vacated is not None
    )


def _wants_topics(wanted: Collection[HookType], handlers: Handlers) -> bool:
    return (
        HookType.TOPIC_OCCUPIED in wanted
        or HookType.TOPIC_VACATED in wanted
        or handlers.topic_occupied is not None
        or handlers.topic_vacated is not None
    )


def _build_sender(
    hooks: HookSettings, clock: Clock, counters: Counters, tasks: TaskOwner, backend: Backend
) -> HookSender | None:
    if hooks.url is None:
        return None
    endpoint = _endpoint(hooks, hooks.url, clock, hooks.timeout_seconds, connections=1)
    return HookSender(SenderConfig(), backend.hook_queue, endpoint, clock, counters, tasks)


def _build_authorizer(
    hooks: HookSettings, clock: Clock, counters: Counters, tasks: TaskOwner
) -> WebhookAuthorizer | None:
    if hooks.authorize_url is None:
        return None
    endpoint = _endpoint(
        hooks,
        hooks.authorize_url,
        clock,
        hooks.authorize_timeout_seconds,
        connections=_MAX_QUESTIONS,
    )
    config = AuthorizerConfig(max_cached=hooks.authorize_cache)
    return WebhookAuthorizer(config, endpoint, clock, counters, tasks)


def _endpoint(
    hooks: HookSettings, url: HookUrl, clock: Clock, timeout_seconds: float, *, connections: int
) -> Endpoint:
    assert hooks.secret is not None  # the settings require one
    return Endpoint(
        url.get_secret_value(),
        hooks.secret.get_secret_value(),
        clock,
        timeout_seconds=timeout_seconds,
        connections=connections,
    )


def _combine(
    own: AuthorizationRule | None, authorizer: WebhookAuthorizer | None, hooks: HookSettings
) -> AuthorizationRule | None:
    if authorizer is None:
        return own
    asking = webhook_rule(authorizer, hooks.authorize)
    return asking if own is None else own.followed_by(asking)
