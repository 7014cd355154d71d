"""Finds the token in a client's CONNECT payload or HTTP request."""

from client_sdk.contract import ErrorCode
from server.core.errors import AccessError


def find_token(auth: object, authorization: str | None, query_token: str | None) -> str | None:
    """Take the token from the `auth` payload, else the header, else the query string.

    Returns None if all are missing or empty. Raises `AccessError` if one is malformed. The
    caller passes `query_token` only if `auth.token_in_query` is set.
    """
    if auth is not None and not isinstance(auth, dict):
        raise AccessError(ErrorCode.AUTH_INVALID, "auth must be an object")
    token = None if auth is None else auth.get("token")
    if token is not None and not isinstance(token, str):
        raise AccessError(ErrorCode.AUTH_INVALID, "auth.token must be a string")
    return token or _bearer(authorization) or query_token or None


def _bearer(authorization: str | None) -> str | None:
    scheme, _, credentials = (authorization or "").strip().partition(" ")
    # RFC 6750, 2.1. Credentials of other schemes can be meant for a proxy.
    if scheme.lower() != "bearer":
        return None
    if not credentials.strip():
        raise AccessError(ErrorCode.AUTH_INVALID, "Authorization: Bearer must have a token")
    return credentials.strip()
