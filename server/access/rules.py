"""The application's own authorization rule; it is asked after the built-in checks."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass, replace
from inspect import iscoroutine
from typing import Any

from client_sdk.contract import ErrorCode
from server.access.principal import Principal
from server.core.errors import AccessError, FloorcastError
from server.tasks import run_foreign

# Gets the principal, and the name of a topic, a session or a namespace. Anything but True refuses.
Check = Callable[[Principal, str], bool | Coroutine[Any, Any, bool]]

logger = logging.getLogger(__name__)

_MAX_SECONDS = 5.0
# The questions of one request that wait for their answers at the same time.
_MAX_WAITING = 16
# After so many questions of one request that are answered at once, others get their turn.
_PER_TURN = 32


@dataclass(frozen=True, slots=True)
class AuthorizationRule:
    """Checks that narrow what the tokens allow; a missing one allows what the tokens allow."""

    may_subscribe: Check | None = None
    may_publish: Check | None = None
    may_join: Check | None = None
    may_connect: Check | None = None
    # Asked after this one has allowed something.
    then: "AuthorizationRule | None" = None

    def followed_by(self, other: "AuthorizationRule") -> "AuthorizationRule":
        """This rule, and the other one for what this one allows."""
        return replace(self, then=other if self.then is None else self.then.followed_by(other))

    @property
    def asks_subscribe(self) -> bool:
        """Whether `check_subscribe` asks anybody."""
        then = self.then is not None and self.then.asks_subscribe
        return then or self.may_subscribe is not None

    @property
    def asks_publish(self) -> bool:
        """Whether `check_publish` asks anybody."""
        return self.may_publish is not None or (self.then is not None and self.then.asks_publish)

    async def check_connect(self, principal: Principal, namespace: str) -> None:
        """Raise `AccessError` if the principal may not connect to the namespace."""
        if self.may_connect is not None:
            await _check(self.may_connect, principal, namespace)
        if self.then is not None:
            await self.then.check_connect(principal, namespace)

    async def check_subscribe(self, principal: Principal, topic: str) -> None:
        """Raise `AccessError` if the principal may not subscribe to the topic."""
        if self.may_subscribe is not None:
            await _check(self.may_subscribe, principal, topic)
        if self.then is not None:
            await self.then.check_subscribe(principal, topic)

    async def check_publish(self, principal: Principal, topic: str) -> None:
        """Raise `AccessError` if the principal may not publish to the topic."""
        if self.may_publish is not None:
            await _check(self.may_publish, principal, topic)
        if self.then is not None:
            await self.then.check_publish(principal, topic)

    async def check_join(self, principal: Principal, session_id: str) -> None:
        """Raise `AccessError` if the principal may not join the session."""
        if self.may_join is not None:
            await _check(self.may_join, principal, session_id)
        if self.then is not None:
            await self.then.check_join(principal, session_id)


async def find_refusals(
    ask: Callable[[Principal, str], Coroutine[Any, Any, None]],
    principal: Principal,
    names: Collection[str],
) -> dict[str, FloorcastError]:
    """Ask about several names, a few at the same time; returns the errors of the refused ones.

    `ask` is `check_subscribe` or another check of a rule.
    """
    refusals: dict[str, FloorcastError] = {}
    if not names:
        return refusals
    waiting = iter(dict.fromkeys(names))

    async def ask_next(waiting: Iterator[str]) -> None:
        for count, name in enumerate(waiting, 1):
            if count % _PER_TURN == 0:
                await asyncio.sleep(0)
            try:
                await ask(principal, name)
            except FloorcastError as error:
                refusals[name] = error.with_traceback(None)

    # Not a TaskGroup: a handler begins to run without a task.
    await asyncio.gather(*(ask_next(waiting) for _ in range(min(len(names), _MAX_WAITING))))
    return refusals


def authorize(
    *,
    may_subscribe: Check | None = None,
    may_publish: Check | None = None,
    may_join: Check | None = None,
    may_connect: Check | None = None,
) -> AuthorizationRule:
    """A rule of sync or async functions; each gets the principal, and a topic, a session id, or
    the name of a namespace.

    It can only refuse what the token allows. Example:

        rule = authorize(may_join=lambda principal, session_id: "desk" in principal.claims)

    A function may raise `AccessError` for a message of its own; any other exception is logged and
    refuses.
    """
    return AuthorizationRule(may_subscribe, may_publish, may_join, may_connect)


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
