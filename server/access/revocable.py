"""Refuses revoked tokens before any other verifier accepts them."""

from typing import Protocol

from server.access.principal import Principal
from server.access.requests import AuthRequest
from server.core.revocations import Revocations


class Verifier(Protocol):
    """Verifies tokens."""

    async def verify(self, token: str) -> Principal:
        """Return the principal of a token; raises `AccessError` if the token is invalid."""

    async def verify_client(self, token: str | None, request: AuthRequest) -> Principal | None:
        """Return the principal of a client, None if it has no token and nothing else to go by.

        Raises `AccessError` if it is refused.
        """


class RevocableVerifier:
    """A verifier that also refuses revoked tokens."""

    def __init__(self, verifier: Verifier, revocations: Revocations) -> None:
        self._verifier = verifier
        self._revocations = revocations

    async def verify(self, token: str) -> Principal:
        """Return the principal of a token; raises `AccessError` if it is invalid or revoked."""
        principal = await self._verifier.verify(token)
        self._revocations.check(principal)
        return principal

    async def verify_client(self, token: str | None, request: AuthRequest) -> Principal | None:
        """Return the principal of a client, None if it has no token and nothing else to go by.

        Raises `AccessError` if it is refused, or its token revoked.
        """
        principal = await self._verifier.verify_client(token, request)
        if principal is not None:
            self._revocations.check(principal)
        return principal
