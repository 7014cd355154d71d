"""Authenticates clients by a function of the application, instead of by JSON Web Tokens."""

from collections.abc import Callable, Coroutine
from inspect import iscoroutine
from typing import Any

from client_sdk.contract import ErrorCode
from server.access import Principal
from server.core.errors import AccessError
from server.ports import Clock
from server.tasks import run_foreign

# Gets the client's token. Raises `AccessError`, or returns None, to refuse it.
Authenticate = Callable[[str], Principal | Coroutine[Any, Any, Principal | None] | None]

_MAX_SECONDS = 5.0


class ApplicationVerifier:
    """Verifies tokens by the application's function."""

    def __init__(self, authenticate: Authenticate, clock: Clock) -> None:
        self._authenticate = authenticate
        self._clock = clock

    async def verify(self, token: str) -> Principal:
        """Return the principal of a token; raises `AccessError` if there is none."""
        principal = self._authenticate(token)
        if iscoroutine(principal):
            try:
                principal = await run_foreign(
                    principal, "floorcast-authentication", timeout_seconds=_MAX_SECONDS
                )
            except TimeoutError:
                raise AccessError(
                    ErrorCode.SERVER_OVERLOADED, "the authentication takes too long: retry later"
                ) from None
        if principal is None:
            raise AccessError(ErrorCode.AUTH_INVALID, "the token is not valid")
        if not isinstance(principal, Principal) or not principal.user_id or principal.anonymous:
            raise TypeError("authenticate must return a Principal with a user id, or None")
        if self._clock.time() >= principal.expires_at:
            raise AccessError(ErrorCode.AUTH_EXPIRED, "the token has expired")
        return principal
