"""Serves the liveness and readiness probes."""

from collections.abc import Callable

from aiohttp import web


def add_health(app: web.Application, *, is_ready: Callable[[], bool]) -> None:
    """Serve `/health/live` and `/health/ready`; not ready means 503."""

    async def live(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(request: web.Request) -> web.Response:
        if is_ready():
            return web.json_response({"status": "ready"})
        response = web.json_response({"status": "not ready"}, status=503)
        # A probe on a new connection may reach another worker, which is ready.
        response.force_close()
        return response

    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
