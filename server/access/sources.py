"""Finds the token in what a client sent."""

from client_sdk.contract import ErrorCode
from server.core.errors import AccessError


def find_token(auth: object, authorization: str | None, query_token: str | None) -> str | None:
    """From the `auth` payload, else the `Authorization` header, else the query string.

    An empty token is none. `query_token` is given only where the setting allows it.
    """
    if auth is not None and not isinstance(auth, dict):
        raise AccessError(ErrorCode.AUTH_INVALID, "auth must be an object")
    token = None if auth is None else auth.get("token")
    if token is not None and not isinstance(token, str):
        raise AccessError(ErrorCode.AUTH_INVALID, "auth.token must be a text")
    return token or _bearer(authorization) or query_token or None


def _bearer(authorization: str | None) -> str | None:
    scheme, _, credentials = (authorization or "").strip().partition(" ")
    # A proxy in front may ask for a password: what other schemes carry is not for us.
    if scheme.lower() != "bearer":
        return None
    if not credentials.strip():
        raise AccessError(ErrorCode.AUTH_INVALID, "Authorization: Bearer comes without a token")
    return credentials.strip()
