"""Sets the headers that every response of the server has."""

from aiohttp import web

# In place of the versions of Python and aiohttp.
SERVER_NAME = "floorcast"


def add_headers(app: web.Application) -> None:
    """Add headers to all responses: no versions, no guessed content types, no caching."""

    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Server"] = SERVER_NAME
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Cache-Control", "no-store")

    app.on_response_prepare.append(prepare)
