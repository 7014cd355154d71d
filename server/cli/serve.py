"""`floorcast serve`: run the server."""

import argparse
import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from client_sdk.contract import Scope
from server.access import AccessConfig, ConfigurationError, mint, new_secret
from server.app import SystemClock
from server.cli.logs import log_to_stderr
from server.cli.sources import Commands, add_config, settings_from
from server.configs import access_config
from server.serving import serve

_DEMO_SCOPES = {
    "trader": [Scope.MARKET_READ, Scope.SESSION_JOIN],
    "publisher": [Scope.MARKET_READ, Scope.MARKET_PUBLISH],
    "moderator": [Scope.MARKET_READ, Scope.SESSION_JOIN, Scope.SESSION_MODERATE, Scope.ADMIN],
}
_DEMO_TOKEN_SECONDS = 24 * 3600


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "serve",
        help="run the server",
        description="Run the server until SIGTERM, which drains, or Ctrl-C, which does not wait.",
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000; 0 is any)")
    parser.add_argument("--workers", type=int, help="processes; only 1 as yet")
    parser.add_argument(
        "--feed",
        metavar="NAME",
        help="simulated, replay:FILE, none, or an installed feed (default none)",
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="nothing to set up: a simulated feed, a secret for this run, tokens, a page at /",
    )
    add_config(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    log_to_stderr()
    asked = {
        "server.host": arguments.host,
        "server.port": arguments.port,
        "server.workers": arguments.workers,
        "feed.name": arguments.feed or ("simulated" if arguments.demo else None),
    }
    flags = {name: value for name, value in asked.items() if value is not None}
    settings = settings_from(arguments, environ, flags)
    # A secret that is configured is used: tokens made elsewhere then work with the demo.
    if arguments.demo and settings.auth.secret is None:
        settings = settings_from(arguments, environ, {**flags, "auth.secret": new_secret()})
    tokens = _demo_tokens(access_config(settings)) if arguments.demo else {}

    def announce(url: str) -> None:
        for user, token in tokens.items():
            print(f"token of {user}: {token}")
        if tokens:
            print(f"console: {url}/")
        print(f"listening on {url}", flush=True)

    try:
        _run_loop(serve(settings, announce=announce, console_token=tokens.get("trader")))
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {settings.server.host}:{settings.server.port}: {error.strerror}"
        ) from None
    return 0


def _demo_tokens(access: AccessConfig) -> dict[str, str]:
    assert access.secret is not None
    return {
        user: mint(
            access.secret,
            subject=user,
            scopes=scopes,
            clock=SystemClock(),
            ttl_seconds=_DEMO_TOKEN_SECONDS,
            audience=access.audience,
            issuer=access.issuer,
        )
        for user, scopes in _DEMO_SCOPES.items()
    }


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed: it is faster, and not to be had on Windows."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
