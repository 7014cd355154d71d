"""Mints tokens for the demo and the command line."""

import secrets
from collections.abc import Iterable

import jwt

from client_sdk.contract import Scope
from server.ports import Clock


def new_secret() -> str:
    """A new random secret."""
    return secrets.token_urlsafe(48)


def mint(
    secret: str,
    *,
    subject: str,
    scopes: Iterable[Scope],
    clock: Clock,
    ttl_seconds: float,
    org: str = "default",
    audience: str = "floorcast",
    issuer: str | None = None,
    symbols: list[str] | None = None,
    sessions: list[str] | None = None,
    users: list[str] | None = None,
    token_id: str | None = None,
) -> str:
    """Sign an HS256 token (RFC 7519) with the claims that the server requires."""
    now = int(clock.time())
    optional = {
        "iss": issuer,
        "symbols": symbols,
        "sessions": sessions,
        "users": users,
        "jti": token_id,
    }
    claims = {
        "sub": subject,
        "org": org,
        "aud": audience,
        "iat": now,
        "exp": now + int(ttl_seconds),
        "scope": " ".join(scope.value for scope in scopes),
        **{name: value for name, value in optional.items() if value is not None},
    }
    return jwt.encode(claims, secret, algorithm="HS256")
