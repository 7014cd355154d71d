"""Prepares an application of one's own that contains a server's, and shows its metrics."""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from server.app import SERVER
from server.measuring import report
from server.metrics import Reports, create_admin_app
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


def admin_app(realtime: web.Application) -> web.Application:
    """The application of the admin listener, for `realtime`, the result of `create_app`.

    It serves `/metrics` and `/health/*` and asks for no token: run it on a port of its own, which
    only your Prometheus reaches. Example:

        runner = web.AppRunner(admin_app(realtime))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 9100).start()
    """

    async def read() -> Reports:
        return {"0": report(realtime[SERVER])}

    return create_admin_app(read)
