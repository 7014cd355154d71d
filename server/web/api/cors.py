"""Lets pages of the allowed origins call the API from a browser."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from client_sdk.contract import ErrorCode
from server.core.errors import AccessError

# What a page may send and read beyond what any page may; no cookies: a token is needed anyway.
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, X-Request-Id",
    "Access-Control-Max-Age": "600",
}
_EXPOSED = "X-Request-Id, Retry-After, WWW-Authenticate"
_MAX_ORIGIN_LENGTH = 200

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_cors(api: web.Application, allows_origin: Callable[[web.Request], bool]) -> None:
    """Answer preflights, and name an allowed origin in each response (Fetch standard, CORS)."""

    @web.middleware
    async def answer_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _is_preflight(request):
            return await handler(request)
        if not allows_origin(request):
            origin = request.headers["Origin"][:_MAX_ORIGIN_LENGTH]
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"server.origins does not allow {origin!r}")
        return web.Response(status=204, headers=_PREFLIGHT)

    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Vary"] = "Origin"
        origin = request.headers.get("Origin")
        if origin is not None and allows_origin(request):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED

    api.middlewares.append(answer_preflight)
    api.on_response_prepare.append(prepare)


def _is_preflight(request: web.Request) -> bool:
    return (
        request.method == "OPTIONS"
        and "Origin" in request.headers
        and "Access-Control-Request-Method" in request.headers
    )
