"""Composes the server from its settings into one aiohttp application."""

import contextlib
from collections.abc import Sequence

from aiohttp import web

from server.access import AuthorizationRule, ConfigurationError
from server.configs import feed_options
from server.embedding import Authenticate, Extensions, Handlers, Namespace
from server.feeds import FeedError, open_feeds
from server.ports import ApplicationBackend, Clock, Feed
from server.server import Server, SystemClock
from server.settings import Settings
from server.sockets import ApplicationGuard
from server.transport import SOCKET_PATH
from server.web import add_console, add_headers, add_health, shape_errors
from server.web.api import add_api

SERVER: web.AppKey[Server] = web.AppKey("floorcast", Server)


def create_app(
    settings: Settings,
    *,
    backend: ApplicationBackend | None = None,
    authorize: AuthorizationRule | None = None,
    authenticate: Authenticate | None = None,
    namespaces: Sequence[Namespace] = (),
    guards: Sequence[ApplicationGuard] = (),
    handlers: Handlers | None = None,
    feed: Feed | None = None,
    clock: Clock | None = None,
    console_token: str | None = None,
    run_feed: bool = True,
) -> web.Application:
    """Create the aiohttp application; its server is `app[SERVER]`.

    `backend` replaces the one that `broker.url` names, `authenticate` the verification of tokens.
    `authorize` and `guards` run after the built-in checks, and can only refuse more. Without
    `run_feed`, the feed waits for `Server.start_feed`. With `console_token` the console is served
    and opens with this token. Raises `ConfigurationError` if the settings
    are invalid, `TypeError` for a stock namespace, and `ValueError` if the name of one is taken.
    """
    clock = clock or SystemClock()
    try:
        feeds = (
            open_feeds(settings.feed.names, feed_options(settings, clock), settings.feed_options)
            if feed is None
            else {type(feed).__name__: feed}
        )
    except FeedError as error:
        raise ConfigurationError(f"feed.name: {error}") from error
    extensions = Extensions(
        backend,
        authorize,
        authenticate,
        tuple(namespaces),
        tuple(guards),
        handlers or Handlers(),
    )
    server = Server(settings, extensions, clock=clock, feeds=feeds, run_feeds=run_feed)
    app = web.Application(middlewares=[shape_errors])
    app[SERVER] = server
    app.cleanup_ctx.append(contextlib.asynccontextmanager(server.run))
    server.sockets.attach(app, SOCKET_PATH)
    add_headers(app)
    add_health(app, is_ready=lambda: server.is_ready)
    add_api(
        app,
        server.api.handler,
        server.api.endpoints,
        allows_origin=server.sockets.eio.allows_origin_of,
    )
    if settings.server.console or console_token is not None:
        add_console(app, token=console_token, admits_page_of=server.sockets.eio.admits_page_of)
    return app
