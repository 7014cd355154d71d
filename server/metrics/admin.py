"""The admin listener: metrics of all workers, and health with its reasons."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from server.metrics.exposition import render
from server.metrics.samples import Report, Samples
from server.transport.origins import is_local_name, is_loopback

# The reports of all workers, by worker.
Reports = Mapping[str, Report]

_MAX_REQUESTS = 8
_WRITE_SECONDS = 10.0


def create_admin_app(read: Callable[[], Awaitable[Reports]]) -> web.Application:
    """The application that serves `/metrics` and `/health/*` on the admin listener.

    `read` must return within a time limit. A client that does not read its response is cut off.
    """
    app = web.Application(middlewares=[_Bounded().handle])

    async def metrics(request: web.Request) -> web.Response:
        reports = await read()
        samples = {worker: _with_up(each) for worker, each in reports.items()}
        # Rendering takes milliseconds: in a thread, so that no delivery waits for it.
        page, content_type = await asyncio.to_thread(
            render, samples, request.headers.get("Accept", "")
        )
        return web.Response(body=page, headers={"Content-Type": content_type})

    async def live(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(request: web.Request) -> web.Response:
        obstacles = {worker: each.obstacles for worker, each in (await read()).items()}
        is_ready = not any(obstacles.values())
        body = {"status": "ready" if is_ready else "not ready", "workers": obstacles}
        return web.json_response(body, status=200 if is_ready else 503)

    app.router.add_get("/metrics", metrics)
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    return app


def _with_up(report: Report) -> Samples:
    """The samples of a worker, and whether it answers."""
    report.samples.add("floorcast_workers_up", report.is_up)
    return report.samples


class _Bounded:
    """Bounds the requests that are served at once, and the time to write each response.

    On the loopback interface it serves only requests to a local name or address.
    """

    def __init__(self) -> None:
        self._open = 0

    @web.middleware
    async def handle(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        if is_loopback(request.remote or "") and not is_local_name(request.host):
            # A page whose name resolves to this machine (DNS rebinding) could read the answer.
            return web.json_response({"status": "unknown host"}, status=403)
        if self._open >= _MAX_REQUESTS:
            return web.json_response({"status": "too many requests at once"}, status=503)
        self._open += 1
        try:
            response = await handler(request)
            await _write(request, response)
            return response
        finally:
            self._open -= 1


async def _write(request: web.Request, response: web.StreamResponse) -> None:
    try:
        async with asyncio.timeout(_WRITE_SECONDS):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
