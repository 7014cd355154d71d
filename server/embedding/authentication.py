"""Authenticates clients by a function of the application, instead of by JSON Web Tokens."""

import inspect
from collections.abc import Callable, Coroutine
from inspect import iscoroutine
from typing import Any, TypeAlias, cast

from client_sdk.contract import ErrorCode
from server.access import AuthRequest, Principal
from server.core.errors import AccessError
from server.ports import Clock
from server.tasks import run_foreign

Verdict: TypeAlias = Principal | Coroutine[Any, Any, Principal | None] | None
# Gets the client's token. Raises `AccessError`, or returns None, to refuse it.
AuthenticateToken = Callable[[str], Verdict]
# Also gets the request, and is asked without a token too.
AuthenticateRequest = Callable[[str | None, AuthRequest], Verdict]
Authenticate = AuthenticateToken | AuthenticateRequest

_MAX_SECONDS = 5.0
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def reads_requests(authenticate: Authenticate) -> bool:
    """Whether a function needs a second argument, the request."""
    try:
        parameters = inspect.signature(authenticate).parameters.values()
    except (TypeError, ValueError):
        # Written in C: it gets what every function gets.
        return False
    required = [
        each for each in parameters if each.kind in _POSITIONAL and each.default is each.empty
    ]
    return len(required) > 1


class ApplicationVerifier:
    """Verifies clients by the application's function."""

    def __init__(self, authenticate: Authenticate, clock: Clock) -> None:
        self._authenticate = authenticate
        self._reads_requests = reads_requests(authenticate)
        self._clock = clock

    async def verify(self, token: str) -> Principal:
        """Return the principal of a token; raises `AccessError` if there is none."""
        principal = await self.verify_client(token, AuthRequest())
        assert principal is not None  # only without a token
        return principal

    async def verify_client(self, token: str | None, request: AuthRequest) -> Principal | None:
        """Return the principal of a client, None if it has no token and nothing else to go by.

        Raises `AccessError` if it is refused.
        """
        if self._reads_requests:
            verdict = cast(AuthenticateRequest, self._authenticate)(token, request)
        elif token is None:
            return None
        else:
            verdict = cast(AuthenticateToken, self._authenticate)(token)
        principal = await _wait(verdict)
        if principal is None and token is None:
            return None
        if principal is None:
            raise AccessError(ErrorCode.AUTH_INVALID, "the token is not valid")
        if not isinstance(principal, Principal) or not principal.user_id or principal.anonymous:
            raise TypeError("authenticate must return a Principal with a user id, or None")
        if self._clock.time() >= principal.expires_at:
            raise AccessError(ErrorCode.AUTH_EXPIRED, "the token has expired")
        return principal


async def _wait(verdict: Verdict) -> Principal | None:
    if not iscoroutine(verdict):
        return cast("Principal | None", verdict)
    try:
        return await run_foreign(verdict, "floorcast-authentication", timeout_seconds=_MAX_SECONDS)
    except TimeoutError:
        raise AccessError(
            ErrorCode.SERVER_OVERLOADED, "the authentication takes too long: retry later"
        ) from None
