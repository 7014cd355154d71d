"""Translates errors into HTTP statuses and the one shape of error answers."""

import logging
import math
import secrets
from collections.abc import Mapping

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from client_sdk.contract import ErrorBody, ErrorCode
from server.core.errors import FloorcastError, RequestError, StateError

logger = logging.getLogger(__name__)

_STATUS = {
    ErrorCode.AUTH_MISSING: 401,
    ErrorCode.AUTH_INVALID: 401,
    ErrorCode.AUTH_EXPIRED: 401,
    ErrorCode.AUTH_REVOKED: 401,
    ErrorCode.AUTH_FORBIDDEN: 403,
    ErrorCode.LIMIT_PAYLOAD: 413,
    ErrorCode.REQUEST_INVALID: 400,
    ErrorCode.REQUEST_UNKNOWN_EVENT: 404,
    ErrorCode.TOPIC_UNKNOWN: 404,
    ErrorCode.SESSION_NOT_JOINED: 404,
    ErrorCode.SESSION_CLOSED: 409,
    ErrorCode.PUBLISH_CONFLICT: 409,
    ErrorCode.PUBLISH_SNAPSHOT_REQUIRED: 409,
    ErrorCode.SERVER_INTERNAL: 500,
}
# Every code of these areas that has no status of its own: come back later.
_AREA_STATUS = {"limit": 429, "server": 503, "auth": 503}
_RETRY_STATUS = (429, 503)


class ErrorAnswer(BaseModel):
    """Every refusal: what is wrong, with one of the codes of docs/protocol.md."""

    model_config = ConfigDict(frozen=True)

    error: ErrorBody = Field(description="`retry_after_ms` says when a retry can succeed")


class HttpError(RequestError):
    """A request that HTTP itself makes invalid; it has its own status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: ErrorCode = ErrorCode.REQUEST_INVALID,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(code, message)
        self.status = status
        self.headers = headers or {}
        # Whether the rest of the request is not worth reading.
        self.close = close


def status_of(error: FloorcastError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, HttpError):
        return error.status
    if isinstance(error, StateError):
        return 409
    return _STATUS.get(error.code) or _AREA_STATUS[error.code.value.partition(".")[0]]


def error_response(
    error: FloorcastError, extra: Mapping[str, object] | None = None, status: int | None = None
) -> web.Response:
    """The response for an error; `extra` are fields beside `error`."""
    status = status or status_of(error)
    response = web.json_response({"error": error.body(), **(extra or {})}, status=status)
    if status == 401:
        # RFC 9110, 11.6.1.
        response.headers["WWW-Authenticate"] = 'Bearer realm="floorcast"'
    if status in _RETRY_STATUS:
        seconds = math.ceil((error.retry_after_ms or 1000) / 1000)
        response.headers["Retry-After"] = str(seconds)
    if isinstance(error, HttpError):
        response.headers.update(error.headers)
        if error.close:
            response.force_close()
    return response


def from_aiohttp(error: web.HTTPException) -> HttpError:
    """What aiohttp refuses: an unknown path, a wrong method, a body that is too large."""
    if error.status == 404:
        return HttpError(404, "no such path: see /api/v1/docs")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return HttpError(405, f"use one of: {allowed}", headers={"Allow": allowed})
    if error.status == 413:
        return HttpError(413, "the body is too large", code=ErrorCode.LIMIT_PAYLOAD, close=True)
    return HttpError(error.status, error.reason)


def internal_error(where: str, request_id: str, failure: Exception) -> FloorcastError:
    """Log a failure; the client gets only an incident id, by which the log has the details."""
    incident = secrets.token_hex(6)
    logger.error(
        "an API handler failed",
        extra={"incident": incident, "request": request_id, "endpoint": where},
        exc_info=failure,
    )
    return FloorcastError(
        ErrorCode.SERVER_INTERNAL,
        f"internal error; quote incident {incident}",
        details={"incident": incident},
    )
