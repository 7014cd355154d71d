"""`floorcast serve`: runs the server."""

import argparse
import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Mapping

from client_sdk.contract import Scope
from server.access import AccessConfig, ConfigurationError, mint, new_secret
from server.app import create_app
from server.cli import worker
from server.cli.logs import log_to_stderr
from server.cli.loops import run_loop
from server.cli.private_redis import private_redis
from server.cli.sources import Commands, add_config, add_data, settings_from
from server.configs import access_config, check_workers
from server.server import SystemClock
from server.serving import serve, url_of
from server.settings import Settings, load_settings
from server.transport.origins import LOOPBACK, is_local_name
from server.workers import Launcher, WorkersError, WorkerSpec, open_listeners, supervise

logger = logging.getLogger(__name__)

_DEMO_SCOPES = {
    "trader": [Scope.MARKET_READ, Scope.SESSION_JOIN],
    "publisher": [Scope.MARKET_READ, Scope.MARKET_PUBLISH],
    "moderator": [Scope.MARKET_READ, Scope.SESSION_JOIN, Scope.SESSION_MODERATE, Scope.ADMIN],
    "ops": list(Scope),
}
_DEMO_TOKEN_SECONDS = 24 * 3600


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "serve",
        help="run the server",
        description=(
            "Run the server until SIGTERM, which drains, or Ctrl-C, which does not. "
            "With several workers, SIGHUP replaces them one at a time."
        ),
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000; 0 is any)")
    parser.add_argument(
        "--workers", type=int, help="processes (default 1); more than 1 share a Redis"
    )
    parser.add_argument(
        "--feed",
        metavar="NAME",
        action="append",
        help="simulated, replay:FILE, none, an installed feed, or a table [feed.NAME] "
        "(default none); may be repeated",
    )
    parser.add_argument("--symbols", metavar="A,B", help="the symbols of the feeds")
    parser.add_argument(
        "--origin",
        action="append",
        metavar="URL",
        help="let pages of this origin connect, such as https://desk.example; may be repeated",
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="run without setup: a simulated feed, a new secret, tokens and a console at /",
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        help="lowest level to log (default info); debug traces every connection",
    )
    parser.add_argument(
        "--log-format",
        choices=("console", "json"),
        help="console for people, json for one object a line (default console)",
    )
    add_data(parser, required=False, what="keep all data in this folder (broker.url = file:FOLDER)")
    add_config(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    given = {
        "server.host": arguments.host,
        "server.port": arguments.port,
        "server.workers": arguments.workers,
        "broker.url": None if arguments.data is None else f"file:{arguments.data}",
        "server.origins": arguments.origin,
        "feed.name": ",".join(arguments.feed or ()) or ("simulated" if arguments.demo else None),
        "feed.symbols": arguments.symbols,
        "log.level": arguments.log_level,
        "log.format": arguments.log_format,
    }
    flags: dict[str, object] = {name: each for name, each in given.items() if each is not None}
    settings = settings_from(arguments, environ, flags)
    log_to_stderr(settings.log)
    with contextlib.ExitStack() as owned:
        if arguments.demo:
            # A configured secret is used, so that existing tokens work with the demo.
            if settings.auth.secret is None:
                flags["auth.secret"] = new_secret()
            # A page under development is served by another program.
            flags["server.origins"] = [*settings.server.origins, LOOPBACK]
            if settings.server.workers > 1 and settings.broker.url.in_memory:
                flags["broker.url"] = owned.enter_context(private_redis())
            settings = settings_from(arguments, environ, flags)
        check_workers(settings)
        tokens = _demo_tokens(access_config(settings)) if arguments.demo else {}
        announce = functools.partial(_announce, tokens)
        console_token = tokens.get(_console_user(settings.server.host))
        try:
            if settings.server.workers > 1:
                spec = WorkerSpec(0, flags, arguments.config, console_token)
                return _run_workers(spec, settings, environ, announce)
            run_loop(serve(settings, announce=announce, console_token=console_token))
        except OSError as error:
            # A full disk, for example.
            raise ConfigurationError(f"cannot start: {error}") from error
    return 0


def _run_workers(
    spec: WorkerSpec,
    settings: Settings,
    environ: Mapping[str, str],
    announce: Callable[[str], None],
) -> int:
    def check_settings() -> None:
        # Building the app as a worker does reports errors here, once.
        create_app(load_settings(flags=spec.flags, environ=environ, file=spec.config))

    check_settings()
    if "polling" in settings.server.allowed_transports:
        logger.warning(
            "polling does not work with several workers: requests reach different workers"
        )
    listeners = open_listeners(settings)
    command = worker.command(settings.log)
    launcher = Launcher(command, environ, spec)
    try:
        all_ended = run_loop(
            supervise(
                launcher,
                listeners,
                settings=settings,
                check_settings=check_settings,
                announce=lambda: announce(url_of(listeners[0])),
            )
        )
    except WorkersError as error:
        print(f"floorcast: {error.message}", file=sys.stderr)
        return error.code
    return 0 if all_ended else 1


def _announce(tokens: Mapping[str, str], url: str) -> None:
    for user, token in tokens.items():
        print(f"token of {user}: {token}")
    if tokens:
        print(f"console: {url}/")
    print(f"listening on {url}", flush=True)


def _console_user(host: str) -> str:
    """The user whose token the demo's console gets: everybody who can open the page can read it."""
    return "ops" if is_local_name(host) else "trader"


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
