"""The authorization rule that asks the operator's webhook."""

from collections.abc import Collection, Coroutine
from typing import Any, Literal

from client_sdk.contract import ErrorCode
from server.access import AuthorizationRule, Principal
from server.access.rules import Check
from server.core.errors import AccessError
from server.hooks import WebhookAuthorizer

Action = Literal["connect", "subscribe", "join", "publish"]

_TARGETS: dict[Action, str] = {
    "connect": "namespace",
    "subscribe": "topic",
    "join": "session_id",
    "publish": "topic",
}


def webhook_rule(authorizer: WebhookAuthorizer, actions: Collection[Action]) -> AuthorizationRule:
    """A rule that asks the webhook before these actions."""

    def check(action: Action) -> Check | None:
        return _check(authorizer, action) if action in actions else None

    return AuthorizationRule(
        may_subscribe=check("subscribe"),
        may_publish=check("publish"),
        may_join=check("join"),
        may_connect=check("connect"),
    )


def _check(authorizer: WebhookAuthorizer, action: Action) -> Check:
    target_field = _TARGETS[action]

    def ask(principal: Principal, target: str) -> bool | Coroutine[Any, Any, bool]:
        question = {
            "action": action,
            "user_id": principal.user_id,
            "org": principal.org,
            "claims": dict(principal.claims),
            target_field: target,
        }
        try:
            return authorizer.check(question)
        except TypeError:
            # A number that JSON readers cannot hold, or text that is no Unicode.
            raise AccessError(
                ErrorCode.AUTH_INVALID, "the claims of the token cannot be sent to the webhook"
            ) from None

    return ask
