"""Answers what is wrong in HTTP itself in the one shape of errors."""

from collections.abc import Awaitable, Callable

from aiohttp import web, web_protocol, web_server

from client_sdk.contract import ErrorCode
from server.web.api.errors import HttpError, error_response, from_aiohttp

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def shape_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer unknown paths and wrong methods."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return error_response(from_aiohttp(error))


class _RequestHandler(web_protocol.RequestHandler):
    """Also answers requests that cannot be parsed, and handlers that fail."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # Logs it; raises if an answer has begun.
        super().handle_error(request, status, exc, message)
        if status < 500:
            return error_response(HttpError(status, "malformed HTTP request", close=True))
        failed = HttpError(status, "internal error", code=ErrorCode.SERVER_INTERNAL, close=True)
        return error_response(failed)


def shape_malformed_requests() -> None:
    """Answer malformed requests in the one shape, in all servers of this process."""
    web_server.RequestHandler = _RequestHandler  # type: ignore[attr-defined]
