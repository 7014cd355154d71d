"""Finds the token in what a client sent."""

from client_sdk.contract import ErrorCode
from server.core.errors import AccessError


def find_token(auth: object, authorization: str | None, query_token: str | None) -> str | None:
    """From the `auth` payload, else the `Authorization` header, else the query string."""
    if auth is not None and not isinstance(auth, dict):
        raise AccessError(ErrorCode.AUTH_INVALID, "auth must be an object")
    token = None if auth is None else auth.get("token")
    if token is not None:
        if not isinstance(token, str):
            raise AccessError(ErrorCode.AUTH_INVALID, "auth.token must be a text")
        return token or None
    if authorization is not None:
        scheme, _, credentials = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not credentials.strip():
            raise AccessError(ErrorCode.AUTH_INVALID, "Authorization must be a Bearer token")
        return credentials.strip()
    return query_token or None
