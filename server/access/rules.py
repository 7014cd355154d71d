"""The application's own authorization rule; it is asked after the built-in checks."""

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from inspect import iscoroutine
from typing import Any

from client_sdk.contract import ErrorCode
from server.access.principal import Principal
from server.core.errors import AccessError, FloorcastError
from server.tasks import run_foreign

# Gets the principal, and the name of a topic or the id of a session. Anything but True refuses.
Check = Callable[[Principal, str], bool | Coroutine[Any, Any, bool]]

logger = logging.getLogger(__name__)

_MAX_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class AuthorizationRule:
    """Checks that narrow what the tokens allow; a missing one allows what the tokens allow."""

    may_subscribe: Check | None = None
    may_publish: Check | None = None
    may_join: Check | None = None

    async def check_subscribe(self, principal: Principal, topic: str) -> None:
        """Raise `AccessError` if the principal may not subscribe to the topic."""
        if self.may_subscribe is not None:
            await _check(self.may_subscribe, principal, topic)

    async def check_publish(self, principal: Principal, topic: str) -> None:
        """Raise `AccessError` if the principal may not publish to the topic."""
        if self.may_publish is not None:
            await _check(self.may_publish, principal, topic)

    async def check_join(self, principal: Principal, session_id: str) -> None:
        """Raise `AccessError` if the principal may not join the session."""
        if self.may_join is not None:
            await _check(self.may_join, principal, session_id)


def authorize(
    *,
    may_subscribe: Check | None = None,
    may_publish: Check | None = None,
    may_join: Check | None = None,
) -> AuthorizationRule:
    """A rule of sync or async functions; each gets the principal, and a topic or a session id.

    It can only refuse what the token allows. Example:

        rule = authorize(may_join=lambda principal, session_id: "desk" in principal.claims)

    A function may raise `AccessError` for a message of its own; any other exception is logged and
    refuses.
    """
    return AuthorizationRule(may_subscribe, may_publish, may_join)


async def _check(check: Check, principal: Principal, name: str) -> None:
    try:
        verdict = check(principal, name)
        if iscoroutine(verdict):
            verdict = await run_foreign(
                verdict, "floorcast-authorization", timeout_seconds=_MAX_SECONDS
            )
    except TimeoutError:
        raise AccessError(
            ErrorCode.SERVER_OVERLOADED, "the authorization takes too long: retry later"
        ) from None
    except FloorcastError:
        raise
    except Exception:
        # Without a verdict there is no right: a refreshed token must not keep what it had.
        logger.exception("an authorization rule failed", extra={"target": name})
        raise AccessError(ErrorCode.SERVER_INTERNAL, "the authorization failed") from None
    # A forgotten `return` refuses.
    if verdict is not True:
        raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"the application does not allow {name}")
