"""Prepares an application of one's own that contains a server's."""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from server.app import SERVER
from server.serving import freeze_heap, run_options, tuned_collector


def host(app: web.Application, realtime: web.Application) -> dict[str, Any]:
    """Prepare an application that contains `realtime`, the result of `create_app`.

    Call it before the application starts. It then tunes the garbage collector, and drains the
    clients when it is shut down, within `server.drain_seconds`. Returns the arguments of
    `web.run_app`: address, backlog and timeouts, as `floorcast serve` has them. Example:

        app.add_subapp("/realtime", realtime)
        web.run_app(app, **host(app, realtime))

    Other runners, such as gunicorn's worker, have options of their own for these.
    """
    server = realtime[SERVER]

    async def tuned(_: web.Application) -> AsyncIterator[None]:
        with tuned_collector():
            freeze_heap()
            yield

    async def drain(_: web.Application) -> None:
        await server.drain(server.settings.server.drain_seconds)

    app.cleanup_ctx.append(tuned)
    app.on_shutdown.append(drain)
    return run_options(server.settings)
